//! Interleaved timing, so that drift of the machine affects all sides, and the table of medians.
#![allow(dead_code)] // each bench uses a part

use std::time::{Duration, Instant};

/// Something to time: each call returns the time it took.
pub type Side<'a> = (&'a str, Box<dyn FnMut() -> Duration + 'a>);

/// A side whose whole call is timed.
pub fn side<'a, R>(name: &'a str, mut work: impl FnMut() -> R + 'a) -> Side<'a> {
    let timed = move || {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed()
    };
    (name, Box::new(timed))
}

/// Whether the case is selected: arguments that are not flags match parts of names.
pub fn selected(case: &str) -> bool {
    let mut filters = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    filters.peek().is_none() || filters.any(|filter| case.contains(&filter))
}

/// The median time in milliseconds of `rounds` calls of each side, after a warm-up call. Calls shorter than 20 ms are
/// repeated up to that time.
pub fn medians(rounds: usize, sides: &mut [Side]) -> Vec<f64> {
    let enough = Duration::from_millis(20);
    let repeats: Vec<u32> = sides
        .iter_mut()
        .map(|(_, side)| {
            side();
            (enough.as_nanos() / side().as_nanos().max(1)).clamp(1, 1000) as u32
        })
        .collect();
    let mut times = vec![Vec::new(); sides.len()];
    for _ in 0..rounds {
        for (((_, side), times), &repeats) in sides.iter_mut().zip(&mut times).zip(&repeats) {
            let total: Duration = (0..repeats).map(|_| side()).sum();
            times.push(total.as_secs_f64() * 1e3 / f64::from(repeats));
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    times.into_iter().map(median).collect()
}

/// Times the sides of a case and prints a line for each: its median, and the ratio to the first side's.
pub fn compare(case: &str, rounds: usize, mut sides: Vec<Side>) {
    if !selected(case) {
        return;
    }
    let medians = medians(rounds, &mut sides);
    println!("{case}");
    for ((name, _), median) in sides.iter().zip(&medians) {
        println!("  {name:44} {median:10.3} ms {:8.2} x", median / medians[0]);
    }
}

/// Prints the title, with the number of kernel threads.
pub fn title(bench: &str) {
    println!("{bench}, {} threads; medians of calls in turn", rayon::current_num_threads());
}
