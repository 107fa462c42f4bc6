# The verbs of this repository. `just` alone lists them.

default:
    @just --list

# What a change must pass before it lands, without the tests
check:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets --features train -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --features train

# Everything that CI runs
ci:
    .ci/run

# Licences, sources and advisories of all dependencies
check-deny:
    scripts/check_deny.sh

# The workspace with the oldest compiler that it promises
check-msrv:
    scripts/check_msrv.sh

# The thread pool under Miri
check-miri:
    scripts/check_miri.sh

# Type-checks the CUDA features on a machine without CUDA
check-cuda:
    scripts/check_cuda.sh -p multiway-cli

# Compiles our CUDA kernels with a real nvcc, NVCC or that of the PATH, and prints what they take
cuda-check:
    model/kernels/resources.sh

# The Python wheel, built and tested in an environment of its own
check-wheel *ARGS:
    scripts/check_wheel.sh {{ARGS}}

# All tests, as CI runs them
test:
    cargo test --release --workspace --features train

# All benches
bench:
    cargo bench --workspace

fmt:
    cargo fmt --all

docs:
    cargo doc --workspace --no-deps --features train --open

# Trains the embedded model from nothing: data, tokenizer, pre-training, fine-tuning. Each worker is one thread, and glibc
# keeps the memory of a step for the next one: page faults took a fifth of the time.
train *ARGS:
    RAYON_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456 \
    cargo run --release --features train -- train {{ARGS}}

# Scores the embedded model on the held-out tests and prints the counts
evaluate *ARGS:
    cargo run --release --features train -- train evaluate --split test {{ARGS}}

# Start-to-first-word time and peak memory of the released binary alone, in an empty folder
bench-start RUNS="9":
    scripts/bench_start.sh {{RUNS}}

# Load time and memory of checkpoints of real shapes, with random weights
bench-load RUNS="5":
    scripts/bench_load.sh {{RUNS}}

# Compares this build with other engines on this machine, for hours; `just compare --quick` shows that it runs
compare *ARGS:
    benches/compare/run.sh {{ARGS}}

# Fuzzes what reads files, TARGET being checkpoint, front_matter, index_file, picture, pth, schema, task_file, template or tokenizer; needs
# `cargo install cargo-fuzz`
fuzz TARGET="pth" SECONDS="600":
    scripts/fuzz.sh {{TARGET}} {{SECONDS}}

# The tokenizers against PyPI's `sentencepiece` and `tokenizers`, on 34 scripts and kinds of text
check-tokenizers:
    scripts/check_tokenizers.sh
