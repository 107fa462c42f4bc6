//! The threads of the tensor library.

#![expect(
    unsafe_code,
    reason = "the tensor library reads the number of its threads from the environment alone"
)]

use std::env;

/// Where the tensor library reads it.
const THREADS: &str = "CANDLE_NUM_THREADS";

/// Has each tensor operation of training stay on the thread that calls it, unless the environment says
/// otherwise: the workers share the processor out already, and the library's own threads spin while they wait
/// for each other, which takes three quarters of the time where anything else runs on the machine.
///
/// To be called before the first other thread is started.
pub(crate) fn keep_operations_on_their_threads() {
    if env::var_os(THREADS).is_none() {
        // SAFETY: no other thread runs that could read the environment meanwhile.
        unsafe { env::set_var(THREADS, "1") };
    }
}
