//! `--device`: where a model computes.

use std::str::FromStr;

use anyhow::anyhow;
use multiway::checkpoint::Device;

use crate::failure::{Failure, Outcome};
use crate::output::note;

/// Says where a model is to compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// The first GPU that this binary can use, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this ordinal.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ordinal = || text.strip_prefix("cuda:")?.parse().ok();
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => ordinal().map(Self::Cuda).ok_or_else(|| {
                format!("expected `auto`, `cpu`, or `cuda:N` with the number of a GPU, found '{text}'")
            }),
        }
    }
}

impl DeviceChoice {
    /// Opens the device. `auto` falls back to the CPU where a binary that can use a GPU finds none, and says
    /// so on standard error.
    pub(crate) fn open(self, quiet: bool) -> Outcome<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => open_cuda(ordinal).map_err(|cause| {
                Failure::Input(anyhow!(
                    "--device cuda:{ordinal}: {cause}; `--device cpu` computes without a GPU"
                ))
            }),
            Self::Auto if cfg!(feature = "cuda") => Ok(open_cuda(0).unwrap_or_else(|cause| {
                if !quiet {
                    note(&format!("no usable GPU, falling back to the CPU: {cause}"));
                }
                Device::Cpu
            })),
            Self::Auto => Ok(Device::Cpu),
        }
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(ordinal: usize) -> Result<Device, String> {
    Device::new_cuda(ordinal).map_err(|error| error.to_string())
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: usize) -> Result<Device, String> {
    Err(
        "this binary was built without CUDA (`cargo build --release --features cuda` builds one with it)"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_by_their_usual_names() {
        let read =
            ["auto", "cpu", "cuda", "cuda:0", "cuda:3"].map(|text| text.parse::<DeviceChoice>().unwrap());
        let [first, third] = [0, 3].map(DeviceChoice::Cuda);
        assert_eq!(read, [DeviceChoice::Auto, DeviceChoice::Cpu, first, first, third]);
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU "] {
            let message = wrong.parse::<DeviceChoice>().unwrap_err();
            assert!(message.ends_with(&format!("found '{wrong}'")), "{message}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_gpu_that_this_binary_cannot_use_is_refused_and_auto_is_the_cpu() {
        assert!(matches!(DeviceChoice::Auto.open(true), Ok(Device::Cpu)));
        assert!(matches!(DeviceChoice::Cuda(0).open(true), Err(Failure::Input(_))));
    }
}
