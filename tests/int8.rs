//! 8-bit layers: [`Precision::Int8`].

mod common;

use std::path::Path;

use candle_core::{Device, Tensor};
use clipwise::device::Threads;
use clipwise::nn::{Activation, Linear};
use clipwise::{Detail, Error, OpenOptions, Precision, Tagger, Waveform, WaveformBatch, Weights};
use common::{Random, values};
use safetensors::tensor::{Dtype, TensorView};

/// A layer with 8-bit weights that do not use the whole range: `[40, 70]` with one scale.
fn checkpoint() -> (Vec<i8>, Vec<f32>, Weights) {
    let mut random = Random(5);
    let codes: Vec<i8> = (0..40 * 70).map(|_| random.below(101) as i8 - 50).collect();
    let bias = random.samples(40);
    let [codes_bytes, bias_bytes, scale] = [
        codes.iter().map(|&code| code as u8).collect::<Vec<u8>>(),
        bias.iter().flat_map(|x| x.to_le_bytes()).collect(),
        0.03f32.to_le_bytes().to_vec(),
    ];
    let tensors = [
        ("fc.weight", TensorView::new(Dtype::I8, vec![40, 70], &codes_bytes).unwrap()),
        ("fc.weight.scale", TensorView::new(Dtype::F32, vec![1], &scale).unwrap()),
        ("fc.bias", TensorView::new(Dtype::F32, vec![40], &bias_bytes).unwrap()),
    ];
    let weights = Weights::from_bytes(safetensors::serialize(tensors, None).unwrap()).unwrap();
    (codes, bias, weights.with_precision(Precision::Int8))
}

#[test]
fn stored_codes_are_kept() {
    let (codes, bias, weights) = checkpoint();
    let loader = weights.loader(&Device::Cpu);
    let layer = Linear::load(&loader.at("fc"), 70, 40, Activation::Identity).unwrap();
    loader.finish("a layer").unwrap();
    let x = Random(6).samples(3 * 70);
    let y = layer.forward(&Tensor::from_vec(x.clone(), (3, 70), &Device::Cpu).unwrap()).unwrap();
    let expected = x.chunks(70).flat_map(|x| {
        let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let x: Vec<i32> = x.iter().map(|x| (x * (127.0 / largest)).round_ties_even() as i32).collect();
        let scale = largest / 127.0 * 0.03;
        codes
            .chunks(70)
            .zip(&bias)
            .map(move |(codes, bias)| {
                codes.iter().zip(&x).map(|(&code, x)| i32::from(code) * x).sum::<i32>() as f32 * scale + bias
            })
            .collect::<Vec<f32>>()
    });
    assert_eq!(values(&y), expected.collect::<Vec<f32>>());
}

fn refused(result: clipwise::Result<()>, text: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains(text), "{error}");
}

#[test]
fn a_precision_that_is_not_there_is_an_error() {
    let (_, _, weights) = checkpoint();
    let on_tensors = weights.loader(&Device::Cpu).without_kernels();
    refused(Linear::load(&on_tensors.at("fc"), 70, 40, Activation::Identity).map(drop), "run on the CPU");

    let loader = weights.loader(&Device::Cpu);
    Linear::load(&loader.at("fc").in_f32(), 70, 40, Activation::Identity).unwrap();
    refused(loader.finish("a layer"), "no layer of a layer");

    let shipped = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("weights").join(name);
    let options = OpenOptions::new().precision(Precision::Int8);
    refused(Tagger::open_with(shipped("gru-spoken-digits"), &options).map(drop), "expected f32");
}

/// A shipped tagger.
fn shipped(name: &str, precision: Precision) -> Tagger {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights").join(name);
    Tagger::open_with(path, &OpenOptions::new().precision(precision)).unwrap()
}

#[test]
fn taggers_are_nearly_as_accurate() {
    let clip = Waveform::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/audio/telephone.wav")).unwrap();
    for name in ["ced-tiny", "efficientat-mn04"] {
        let [f32, int8] =
            [Precision::F32, Precision::Int8].map(|precision| shipped(name, precision).tag(&clip).unwrap());
        let differences: Vec<f32> = f32.scores.iter().zip(&int8.scores).map(|(a, b)| (a - b).abs()).collect();
        let mean = differences.iter().sum::<f32>() / differences.len() as f32;
        let largest = differences.iter().copied().fold(0.0, f32::max);
        assert!(0.0 < mean && mean <= 2e-4 && largest <= 0.04, "{name}: mean {mean:e}, largest {largest:e}");
        assert_eq!(f32.top_k(1)[0].label, int8.top_k(1)[0].label, "{name}");
    }
}

#[test]
fn rows_depend_neither_on_the_batch_nor_on_the_threads() {
    for name in ["ced-tiny", "efficientat-mn04"] {
        let model = shipped(name, Precision::Int8).into_model();
        let rate = model.info().sample_rate;
        let clips = [1.0, 2.3].map(|seconds| Random(3).samples((seconds * f64::from(rate)) as usize));
        let scores = |clips: &[Vec<f32>], threads| -> Vec<Vec<f32>> {
            let batch = WaveformBatch::new(clips.to_vec(), rate).unwrap();
            let output = Threads::new(threads).unwrap().run(|| model.forward(&batch, Detail::Clip)).unwrap();
            output.clipwise_output.to_vec2().unwrap()
        };
        let together = scores(&[clips[0].clone(), clips[0].clone(), clips[1].clone()], 3);
        assert_eq!(together[0], together[1], "{name}");
        for (i, clip) in [(0, &clips[0]), (2, &clips[1])] {
            assert_eq!(scores(std::slice::from_ref(clip), 1)[0], together[i], "{name}");
        }
    }
}

#[cfg(feature = "bundled")]
#[test]
fn the_bundled_tagger_takes_options() {
    let options = OpenOptions::new().precision(Precision::Int8);
    let clip = Waveform::new(Random(1).samples(16_000), 16_000);
    let scores = |tagger: Tagger| tagger.tag(&clip).unwrap().scores;
    assert_eq!(scores(Tagger::bundled_with(&options).unwrap()), scores(shipped("ced-tiny", Precision::Int8)));
    refused(Tagger::bundled_with(&options.model("cnn14")).map(drop), "expected none for a tagger that is built in");
}

/// The tables of docs/performance.md.
#[cfg(feature = "symphonia")]
mod report {
    use std::path::PathBuf;
    use std::time::Instant;

    use clipwise::ctc::CtcModel;
    use clipwise::encoders::{Layers, SpeechEncoder, WhisperEncoder, whisper};
    use clipwise::metrics::mean_average_precision;
    use clipwise::ndarray::Array2;

    use super::*;
    use crate::common::real;

    const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Int8];

    /// The folders of ESC-10, each with the names of its class in AudioSet.
    const CLASSES: [(&str, &[&str]); 10] = [
        ("baby-cry", &["Baby cry, infant cry"]),
        ("chainsaw", &["Chainsaw"]),
        ("clock-tick", &["Tick", "Tick-tock", "Clock"]),
        ("dog-bark", &["Dog", "Bark"]),
        ("fire-crackling", &["Fire", "Crackle"]),
        ("helicopter", &["Helicopter"]),
        ("person-sneeze", &["Sneeze"]),
        ("rain", &["Rain", "Rain on surface"]),
        ("rooster", &["Chicken, rooster", "Crowing, cock-a-doodle-doo"]),
        ("sea-waves", &["Waves, surf", "Ocean"]),
    ];

    /// The clips of ESC-10 with class and fold.
    fn clips() -> Option<Vec<(Waveform, usize, usize)>> {
        let folder = real("audio/esc10")?;
        let mut clips = Vec::new();
        for (class, (name, _)) in CLASSES.iter().enumerate() {
            let mut files: Vec<PathBuf> =
                std::fs::read_dir(folder.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            for file in files {
                let fold = file.file_name().unwrap().to_str().unwrap()[..1].parse().unwrap();
                clips.push((Waveform::open(&file).unwrap(), class, fold));
            }
        }
        Some(clips)
    }

    fn argmax(scores: &[f32]) -> usize {
        (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap()
    }

    /// The share of clips whose embedding is most similar to the mean of their own class over the other folds.
    fn nearest_mean(embeddings: &[Vec<f32>], clips: &[(Waveform, usize, usize)]) -> f64 {
        let normalised = |x: &[f32]| -> Vec<f32> {
            let norm = x.iter().map(|x| x * x).sum::<f32>().sqrt();
            x.iter().map(|x| x / norm).collect()
        };
        let embeddings: Vec<Vec<f32>> = embeddings.iter().map(|x| normalised(x)).collect();
        let right = (0..clips.len()).filter(|&i| {
            let mut means = vec![vec![0.0; embeddings[0].len()]; CLASSES.len()];
            for (j, (_, class, fold)) in clips.iter().enumerate() {
                if *fold != clips[i].2 {
                    means[*class].iter_mut().zip(&embeddings[j]).for_each(|(mean, x)| *mean += x);
                }
            }
            let cosine = |mean: &Vec<f32>| normalised(mean).iter().zip(&embeddings[i]).map(|(a, b)| a * b).sum();
            argmax(&means.iter().map(cosine).collect::<Vec<f32>>()) == clips[i].1
        });
        right.count() as f64 / clips.len() as f64
    }

    fn median(mut times: Vec<f64>) -> f64 {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    #[test]
    #[ignore = "prints a table"]
    fn taggers() {
        let Some(clips) = clips() else { return };
        println!(
            "\n| model | mean change | largest change | same first tag | ESC-10 accuracy | ESC-10 mAP | class means |"
        );
        println!("|---|---|---|---|---|---|---|");
        let shipped = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("weights").join(name);
        for (name, path) in [
            ("CED-tiny", shipped("ced-tiny")),
            ("mn04", shipped("efficientat-mn04")),
            ("LeeNet11", real("real/panns-leenet11/LeeNet11.pth").unwrap()),
            ("YAMNet", real("real/yamnet/yamnet.tflite").unwrap()),
        ] {
            let open = |precision| Tagger::open_with(&path, &OpenOptions::new().precision(precision));
            let taggers: Vec<Tagger> = match PRECISIONS.into_iter().map(open).collect() {
                Ok(taggers) => taggers,
                Err(error) => {
                    println!("| {name} | {error} |");
                    continue;
                }
            };
            let labels = taggers[0].labels().clone();
            let columns: Vec<Vec<usize>> = CLASSES
                .iter()
                .map(|(_, names)| names.iter().filter_map(|name| labels.index_of(name)).collect())
                .collect();
            let run = |tagger: &Tagger| {
                let taggings: Vec<_> = clips.iter().map(|(clip, ..)| tagger.tag(clip).unwrap()).collect();
                let of_class = |tagging: &clipwise::Tagging| -> Vec<f32> {
                    let best = |columns: &Vec<usize>| columns.iter().map(|&i| tagging.scores[i]).fold(0.0, f32::max);
                    columns.iter().map(best).collect()
                };
                let scores: Vec<Vec<f32>> = taggings.iter().map(of_class).collect();
                let right =
                    scores.iter().zip(&clips).filter(|(scores, (_, class, _))| argmax(scores) == *class).count();
                let targets = Array2::from_shape_fn((clips.len(), CLASSES.len()), |(i, class)| clips[i].1 == class);
                let scores = Array2::from_shape_fn((clips.len(), CLASSES.len()), |(i, class)| scores[i][class]);
                let map = mean_average_precision(scores.view(), targets.view()).unwrap().unwrap();
                let embeddings: Vec<Vec<f32>> = taggings.iter().map(|tagging| tagging.embedding().to_vec()).collect();
                let accuracy = right as f64 / clips.len() as f64;
                (taggings, [accuracy, map, nearest_mean(&embeddings, &clips)])
            };
            let (f32, int8) = (run(&taggers[0]), run(&taggers[1]));
            let pairs = || f32.0.iter().zip(&int8.0);
            let differences: Vec<f32> = pairs()
                .flat_map(|(a, b)| a.scores.iter().zip(&b.scores).map(|(a, b)| (a - b).abs()).collect::<Vec<_>>())
                .collect();
            let mean = differences.iter().map(|&x| f64::from(x)).sum::<f64>() / differences.len() as f64;
            let largest = differences.iter().copied().fold(0.0, f32::max);
            let same = pairs().filter(|(a, b)| argmax(&a.scores) == argmax(&b.scores)).count();
            let [accuracy, map, means] =
                [0, 1, 2].map(|i| format!("{:.1} → {:.1}", 100.0 * f32.1[i], 100.0 * int8.1[i]));
            println!("| {name} | {mean:.1e} | {largest:.4} | {same}/{} | {accuracy} | {map} | {means} |", clips.len());

            let rate = taggers[0].model().info().sample_rate;
            let batch = WaveformBatch::new(vec![Random(1).samples(10 * rate as usize)], rate).unwrap();
            let mut times = [Vec::new(), Vec::new()];
            Threads::new(1).unwrap().run(|| {
                for _ in 0..31 {
                    for (tagger, times) in taggers.iter().zip(&mut times) {
                        let start = Instant::now();
                        tagger.model().forward(&batch, Detail::Clip).unwrap();
                        times.push(start.elapsed().as_secs_f64() * 1e3);
                    }
                }
            });
            let [f32, int8] = times.map(median);
            println!("{name}, 10 s, 1 thread: f32 {f32:.2} ms, int8 {int8:.2} ms, ratio {:.3}", int8 / f32);
        }
    }

    #[test]
    #[ignore = "prints a table"]
    fn whisper() {
        let Some(folder) = real("real/whisper-tiny-en") else { return };
        let mut clips = vec![Waveform::open(real("audio/jfk.wav").unwrap()).unwrap()];
        for folder in ["audio/speech-commands", "audio/spoken-digits"] {
            let mut files = Vec::new();
            let mut folders = vec![real(folder).unwrap()];
            while let Some(folder) = folders.pop() {
                for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                    match path.is_dir() {
                        true => folders.push(path),
                        false if path.extension().is_some_and(|extension| extension == "wav") => files.push(path),
                        false => {}
                    }
                }
            }
            files.sort();
            let every = files.len().div_ceil(30);
            clips.extend(files.iter().step_by(every).map(|file| Waveform::open(file).unwrap()));
        }
        let head = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/whisper-tiny-en-phonemes");
        let models = PRECISIONS.map(|precision| {
            let options = clipwise::ctc::OpenOptions::new().precision(precision);
            CtcModel::open_with(&head, &options.encoder(folder.join("encoder.safetensors"))).unwrap()
        });
        let (mut cosines, mut same, mut n_frames) = (Vec::new(), 0, 0);
        for clip in &clips {
            let batch = WaveformBatch::from(&clip.resample(16_000).unwrap());
            let [a, b] = [0, 1].map(|i| {
                let encoded = models[i].encoder().forward(&batch, Layers::All).unwrap();
                let logits = models[i].forward_encoded(&encoded).unwrap().logits.get(0).unwrap();
                let last = encoded.last.get(0).unwrap().to_vec2::<f32>().unwrap();
                (last, logits.to_vec2::<f32>().unwrap())
            });
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a * b)).sum::<f64>();
            cosines.extend(a.0.iter().zip(&b.0).map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()));
            same += a.1.iter().zip(&b.1).filter(|(a, b)| argmax(a) == argmax(b)).count();
            n_frames += a.1.len();
        }
        cosines.sort_by(f64::total_cmp);
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        println!(
            "\nWhisper tiny.en, {} clips: cosine of frames mean {mean:.5}, 1st percentile {:.5}, smallest {:.5}; same phoneme in {:.2} % of {n_frames} frames",
            clips.len(),
            cosines[cosines.len() / 100],
            cosines[0],
            100.0 * same as f64 / n_frames as f64
        );
        let load = |precision| {
            let weights = Weights::open(folder.join("encoder.safetensors")).unwrap().with_precision(precision);
            WhisperEncoder::load(&whisper::Config::from_weights(&weights).unwrap(), &weights, &Device::Cpu).unwrap()
        };
        let (encoders, mut times) = (PRECISIONS.map(load), [Vec::new(), Vec::new()]);
        let batch = WaveformBatch::new(vec![Random(1).samples(480_000)], 16_000).unwrap();
        Threads::new(1).unwrap().run(|| {
            for _ in 0..9 {
                for (encoder, times) in encoders.iter().zip(&mut times) {
                    let start = Instant::now();
                    encoder.forward(&batch, Layers::Last).unwrap();
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
        });
        let [f32, int8] = times.map(median);
        println!("Whisper tiny.en, 30 s, 1 thread: f32 {f32:.1} ms, int8 {int8:.1} ms, ratio {:.3}", int8 / f32);
    }
}
