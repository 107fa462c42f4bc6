//! The threads of the tensor library.

#![expect(
    unsafe_code,
    reason = "the tensor library reads the number of its threads from the environment alone"
)]

use std::env;

/// Where the tensor library reads it: the first that is set.
const THREADS: [&str; 2] = ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"];

/// Has each tensor operation of training stay on the thread that calls it, unless the environment says
/// otherwise: the workers share the processor out already, and the library's own threads spin while they wait
/// for each other, which takes three quarters of the time where anything else runs on the machine.
///
/// # Safety
/// No other thread has been started.
pub(crate) unsafe fn keep_operations_on_their_threads() {
    if THREADS.iter().all(|name| env::var_os(name).is_none()) {
        let [name, _] = THREADS;
        // SAFETY: no other thread runs that could read the environment meanwhile.
        unsafe { env::set_var(name, "1") };
    }
}
