//! The options that every verb takes.

use std::path::PathBuf;

use clap::Args;

use crate::device::DeviceChoice;
use crate::usage::whole_number;

/// Holds the options that every verb takes.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Checkpoint to use: a folder, a .pth file, or OWNER/NAME[@REVISION] on the hub, which is downloaded
    /// into the shared hub cache. The prefix `hf:` selects the hub even if a folder has that name [default:
    /// the embedded checkpoint]
    #[arg(long, global = true, value_name = "PLACE", help_heading = "Global options")]
    pub(crate) checkpoint: Option<PathBuf>,

    /// Adapter that `multiway finetune` wrote: a folder. It changes the weights of the checkpoint that it was
    /// trained on, as they are loaded
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) adapter: Option<PathBuf>,

    /// Download nothing: use only hub checkpoints that are already in the cache
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) offline: bool,

    /// Also load the *.task files in this folder; they override built-in tasks of the same name (repeatable)
    #[arg(
        long = "task-dir",
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) task_dirs: Vec<PathBuf>,

    /// Device that runs the model: `cpu`, `cuda:N` (GPU number N), or `auto` (the first GPU if the binary was
    /// built with CUDA and one is available, else the CPU) [default: auto]
    #[arg(
        long,
        global = true,
        value_name = "DEVICE",
        default_value = "auto",
        hide_default_value = true,
        help_heading = "Global options"
    )]
    pub(crate) device: DeviceChoice,

    /// Number of compute threads, 1 to 1024 [default: all cores]
    #[arg(long, global = true, value_name = "N", help_heading = "Global options",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// Random seed for sampling; the same seed gives the same text
    #[arg(long, global = true, value_name = "N", help_heading = "Global options", value_parser = whole_number::<u64>)]
    pub(crate) seed: Option<u64>,

    /// Print only results and errors: no progress bars, no notes
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,

    /// Log to standard error with this filter, such as `info` or `multiway_runtime=debug`
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Global options")]
    pub(crate) log: Option<String>,
}
