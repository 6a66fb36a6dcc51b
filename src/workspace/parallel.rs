//! The same work on many things at once.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// More threads than this wait for the disk rather than work.
const MOST_THREADS: usize = 8;
/// What a thread takes at once.
const SHARE: usize = 64;

/// Does the same to each, on as many threads as help, and keeps the order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    let threads = threads.min(items.len().div_ceil(SHARE));
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let from = next.fetch_add(SHARE, Ordering::Relaxed);
                    let Some(share) = items.get(from..items.len().min(from + SHARE)).filter(|share| !share.is_empty())
                    else {
                        return;
                    };
                    let results: Vec<R> = share.iter().map(&work).collect();
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((from, results));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(from, _)| *from);
    done.into_iter().flat_map(|(_, results)| results).collect()
}
