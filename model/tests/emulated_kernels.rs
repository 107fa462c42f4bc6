//! The CUDA kernels of `kernels/`, run on the CPU thread by thread against references in 64 bits, and with
//! faults put into them, which must be found.
//!
//! Needs Linux, for its `ucontext`, and a C++ compiler; `CXX` names one.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The kernels of which there are checks, and the emulation itself.
const CHECKS: [&str; 8] = [
    "decode_attention",
    "encode_attention",
    "top_k",
    "norm",
    "embedding",
    "rotary",
    "gated_gelu",
    "emulation",
];

/// The fewest faults that are put into a kernel.
const MUTANTS: usize = 3;

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// Finds a C++ compiler that runs.
fn compiler() -> Option<String> {
    let named = std::env::var("CXX").ok();
    let usual = ["c++", "g++", "clang++"].map(String::from);
    named.into_iter().chain(usual).find(|name| {
        let mut version = Command::new(name);
        version
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|output| output.status.success())
    })
}

/// Compiles the check of a kernel.
fn compile(compiler: &str, name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("check_{name}"));
    let source = kernels().join(format!("emulation/check_{name}.cpp"));
    // Fibers leave one stack for another by `longjmp`, which the checks of glibc's headers take for a fault.
    let flags = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas"];
    let output = Command::new(compiler)
        .args(flags)
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {messages}", source.display());
    program
}

fn run(program: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

/// Runs the check of a kernel, then with each of its mutants.
fn check(compiler: &str, name: &str) {
    let program = compile(compiler, name);
    let sound = run(&program, &[]);
    let errors = String::from_utf8_lossy(&sound.stderr);
    assert!(sound.status.success(), "{errors}");
    eprint!("{}", String::from_utf8_lossy(&sound.stdout));

    let listed = run(&program, &["--list"]).stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.lines().count() >= MUTANTS, "{name}: {listed}");
    for line in listed.lines() {
        let (mutant, expected) = line.split_once(' ').unwrap();
        let output = run(&program, &["--mutant", mutant]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name}: mutant {mutant} is not caught");
        assert!(
            message.contains(expected),
            "{name}: mutant {mutant} is caught by '{message}', expected '{expected}'"
        );
    }
}

#[test]
fn every_kernel_computes_what_its_reference_does_and_every_mutant_is_caught() {
    if cfg!(not(target_os = "linux")) {
        eprintln!("emulated_kernels: NOT CHECKED: the emulation runs on Linux alone");
        return;
    }
    let Some(compiler) = compiler() else {
        eprintln!("emulated_kernels: NOT CHECKED: there is no C++ compiler; CXX names one");
        return;
    };
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads.min(CHECKS.len()) {
            scope.spawn(|| {
                while let Some(name) = CHECKS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(&compiler, name);
                }
            });
        }
    });
}

#[test]
fn every_kernel_has_a_check() {
    for entry in fs::read_dir(kernels()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "cu") {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap();
            assert!(CHECKS.contains(&name), "{} has no check", path.display());
        }
    }
}
