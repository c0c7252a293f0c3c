//! x
use clipwise::{Detail, Device, WaveformBatch, Weights, models::detect};
use std::io::BufRead;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads = clipwise::device::Threads::new(1).unwrap();
    threads.run(|| {
        let weights = Weights::open(&args[1]).unwrap();
        let detected = detect(&weights).unwrap();
        let model = detected.config.load(&weights, &Device::Cpu).unwrap();
        let io = Weights::open(&args[2]).unwrap();
        let x = io.to_vec("320000.x").unwrap();
        let batch = WaveformBatch::new(vec![x.clone()], 32000).unwrap();
        let features = model.front_end().map(|f| {
            let f = f.compute(&x).unwrap();
            let shape = (1, f.nrows(), f.ncols());
            clipwise::candle_core::Tensor::from_iter(f, &Device::Cpu).unwrap().reshape(shape).unwrap()
        });
        let call = || match &features {
            Some(f) => model.forward_features(f, Detail::Clip).unwrap(),
            None => model.forward(&batch, Detail::Clip).unwrap(),
        };
        call();
        println!("ready");
        for _ in std::io::stdin().lock().lines() {
            call();
            let mut best = f64::MAX;
            let n: usize = args[3].parse().unwrap();
            for _ in 0..n {
                let t = std::time::Instant::now();
                call();
                best = best.min(t.elapsed().as_secs_f64() * 1e3);
            }
            println!("{best}");
        }
    });
}
