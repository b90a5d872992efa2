//! Independent tasks on some threads.

use std::sync::Mutex;

use crate::error::Result;

/// Do `work` for each task, on up to `threads` threads, and return the results in the order of the tasks.
///
/// # Errors
/// The first one, in the order of the tasks.
pub fn in_parallel<T: Send, R: Send>(
    threads: usize,
    tasks: Vec<T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = threads.min(tasks.len());
    if threads <= 1 {
        return tasks.into_iter().map(work).collect();
    }
    let count = tasks.len();
    let waiting = Mutex::new(tasks.into_iter().enumerate());
    let take = || waiting.lock().expect("a worker panicked").next();
    let worker = || {
        let mut done = Vec::new();
        while let Some((place, task)) = take() {
            done.push((place, work(task)));
        }
        done
    };
    let mut results: Vec<Option<Result<R>>> = (0..count).map(|_| None).collect();
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut done = worker();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        for (place, result) in done {
            results[place] = Some(result);
        }
    });
    results.into_iter().map(|result| result.expect("every task was done")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::KernelError;

    #[test]
    fn results_come_in_the_order_of_the_tasks() {
        for threads in [1, 2, 7] {
            let squares = in_parallel(threads, (0..100).collect(), |x: u64| Ok(x * x)).expect("no task fails");
            assert_eq!(squares, (0..100).map(|x| x * x).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_is_told() {
        let fail = |x: u64| if x % 10 == 3 { Err(KernelError::Batch(format!("task {x}"))) } else { Ok(x) };
        let error = in_parallel(3, (0..50).collect(), fail).expect_err("five tasks fail");
        assert_eq!(error.to_string(), "batch: task 3");
    }
}
