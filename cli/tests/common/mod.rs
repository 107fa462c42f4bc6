//! Runs the real binary, and makes inputs for it.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How a run of the binary ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Writes the run down for a snapshot.
    pub(crate) fn told(&self) -> String {
        let code = self.code.map_or("a signal".to_owned(), |code| code.to_string());
        let mut told = format!("exit code {code}\n");
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                told.push_str(&format!("--- {name}\n{text}"));
            }
        }
        told
    }

    /// Reads standard output as one line of JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(
            self.stdout.matches('\n').count(),
            1,
            "expected one line: {:?}",
            self.stdout
        );
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// A folder to run the binary in, so that messages name relative paths.
pub(crate) struct TestFolder {
    folder: tempfile::TempDir,
}

impl TestFolder {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Copies a picture of the examples.
    pub(crate) fn picture(&self, name: &str) {
        self.write(name, picture(name));
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, b"")
    }

    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Ended {
        self.start(args, stdin, &[])
    }

    /// Runs with some variables of the environment.
    pub(crate) fn run_in(&self, args: &[&str], environment: &[(&str, &str)]) -> Ended {
        self.start(args, b"", environment)
    }

    fn start(&self, args: &[&str], stdin: &[u8], environment: &[(&str, &str)]) -> Ended {
        let mut child = Command::new(env!("CARGO_BIN_EXE_multiway"))
            .args(args)
            .envs(environment.iter().copied())
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A run that fails early does not read its input.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        let output = child.wait_with_output().unwrap();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Reads a picture of the examples.
pub(crate) fn picture(name: &str) -> Vec<u8> {
    fs::read(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .join("examples/pictures")
            .join(name),
    )
    .unwrap()
}

/// Makes a PNG of a few bytes that says it is `side` pixels wide and high.
pub(crate) fn png_that_claims(side: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = [side.to_be_bytes(), side.to_be_bytes()].concat();
    header.extend([8, 2, 0, 0, 0]);
    // An empty zlib stream: a stored block of no bytes, and the Adler-32 of nothing.
    let data = [0x78, 0x01, 0x01, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01];
    for (kind, contents) in [(b"IHDR", header.as_slice()), (b"IDAT", &data), (b"IEND", &[])] {
        bytes.extend(u32::try_from(contents.len()).unwrap().to_be_bytes());
        let chunk = [kind.as_slice(), contents].concat();
        bytes.extend(&chunk);
        bytes.extend(crc32(&chunk).to_be_bytes());
    }
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0xedb8_8320
        } else {
            crc >> 1
        }
    };
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc))
    })
}
