//! Send queues that have something to send, waiting for a worker.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::fabric::plane::FunctionPlane;
use crate::queue::Sq;
use crate::world::Waker;

/// A send queue and the function that it belongs to.
#[derive(Clone)]
pub struct Job {
    /// Card of the function.
    pub card: usize,
    /// The function.
    pub function: Arc<FunctionPlane>,
    /// The queue.
    pub sq: Arc<Sq>,
}

/// First come, first served. A queue stands in it at most once, so its length
/// is bounded by the number of queues.
pub struct WorkQueue {
    jobs: Mutex<VecDeque<Job>>,
    waker: Arc<dyn Waker>,
}

impl WorkQueue {
    /// An empty one.
    pub fn new(waker: Arc<dyn Waker>) -> Self {
        Self { jobs: Mutex::new(VecDeque::new()), waker }
    }

    /// Adds a queue and wakes a worker.
    pub fn push(&self, job: Job) {
        self.jobs.lock().push_back(job);
        self.waker.wake();
    }

    /// Adds a queue that the calling worker will come back to.
    pub fn push_back_quietly(&self, job: Job) {
        self.jobs.lock().push_back(job);
    }

    /// Takes the next one.
    pub fn pop(&self) -> Option<Job> {
        self.jobs.lock().pop_front()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.jobs.lock().is_empty()
    }
}
