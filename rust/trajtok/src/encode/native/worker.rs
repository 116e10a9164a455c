//! What a thread keeps from text to text: caches and room.

use std::cell::RefCell;

use crate::encode::native::words::Caches;

/// What a thread keeps from text to text.
pub struct Worker {
    serial: u64,
    /// Words that were merged lately.
    pub caches: Caches,
    /// The text with room behind it.
    pub padded: Vec<u8>,
    /// The word that is being merged.
    pub symbols: Vec<u32>,
}

impl Worker {
    fn new(serial: u64) -> Self {
        Self { serial, caches: Caches::new(), padded: Vec::new(), symbols: Vec::new() }
    }
}

thread_local! {
    /// The last encoder's: a thread that alternates between encoders only loses what was cached.
    static WORKER: RefCell<Option<Box<Worker>>> = const { RefCell::new(None) };
}

/// Runs with the thread's worker for this encoder.
pub fn with_worker<T>(serial: u64, run: impl FnOnce(&mut Worker) -> T) -> T {
    WORKER.with_borrow_mut(|slot| {
        let mut worker =
            slot.take().filter(|worker| worker.serial == serial).unwrap_or_else(|| Box::new(Worker::new(serial)));
        let result = run(&mut worker);
        *slot = Some(worker);
        result
    })
}
