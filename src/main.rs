//! The `multiway` command line: one binary that carries the default checkpoint.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
