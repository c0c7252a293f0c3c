//! Augmentation: exact results where they are deterministic, distributions where they are random.
//! `tests/golden/augment.py` provides torchlibrosa's and SciPy's distributions.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use clipwise::Error;
use clipwise::augment::*;
use clipwise::ndarray::Array2;
use common::{golden, hashed, values};

const DRAWS: usize = 40_000;

/// The setting named by an error.
#[track_caller]
fn refused<T>(result: clipwise::Result<T>) -> &'static str {
    match result.err() {
        Some(Error::Config { field, .. } | Error::Argument { name: field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

/// Asserts that the share of `draws` equals a reference's share of as many draws, or a formula, within five standard
/// deviations.
#[track_caller]
fn same_share(what: &str, got: f64, expected: f64, variances: f64) {
    let deviation = (variances * (expected * (1.0 - expected)).max(1e-4) / DRAWS as f64).sqrt();
    assert!((got - expected).abs() < 5.0 * deviation, "{what}: {got} against {expected}, deviation {deviation}");
}

#[test]
fn uniform_and_normal_numbers_have_their_distributions() {
    let mut random = Random::new(3);
    let draws: Vec<f64> = (0..DRAWS).map(|_| random.uniform()).collect();
    assert!(draws.iter().all(|x| (0.0..1.0).contains(x)));
    for tenth in 1..10 {
        let bound = f64::from(tenth) / 10.0;
        same_share("uniform", draws.iter().filter(|x| **x < bound).count() as f64 / DRAWS as f64, bound, 1.0);
    }
    // The normal distribution within 0.5, 1, 2 and 3 standard deviations.
    let draws: Vec<f64> = (0..DRAWS).map(|_| random.normal()).collect();
    for (bound, expected) in [(0.5, 0.382_925), (1.0, 0.682_689), (2.0, 0.954_500), (3.0, 0.997_300)] {
        same_share("normal", draws.iter().filter(|x| x.abs() < bound).count() as f64 / DRAWS as f64, expected, 1.0);
    }
    same_share("sign", draws.iter().filter(|x| **x < 0.0).count() as f64 / DRAWS as f64, 0.5, 1.0);
    for bound in [1usize, 2, 3, 7, 64] {
        let mut counts = vec![0; bound];
        (0..DRAWS).for_each(|_| counts[random.below(bound)] += 1);
        counts.iter().for_each(|&n| same_share("below", f64::from(n) / DRAWS as f64, 1.0 / bound as f64, 1.0));
    }
    assert_eq!(random.below(0), 0);
    assert!(random.below(usize::MAX) < usize::MAX);
}

#[test]
fn beta_numbers_are_distributed_as_scipys() {
    let golden = golden("augment.safetensors");
    let places = golden.to_vec("beta.x").unwrap();
    for alpha in [0.05, 0.2, 0.5, 1.0, 4.0] {
        let expected = golden.to_vec(&format!("beta.{alpha:?}")).unwrap();
        let mut random = Random::new(11);
        let draws: Vec<f64> = (0..DRAWS).map(|_| random.beta(alpha, alpha)).collect();
        assert!(draws.iter().all(|x| (0.0..=1.0).contains(x)));
        for (&x, &expected) in places.iter().zip(&expected) {
            let share = draws.iter().filter(|draw| **draw <= f64::from(x)).count() as f64 / DRAWS as f64;
            same_share(&format!("Beta({alpha}) at {x}"), share, f64::from(expected), 1.0);
        }
    }
    // The mean is a / (a + b). Includes shapes whose gamma numbers would round to 0 or overflow.
    let mut random = Random::new(12);
    let mean = (0..DRAWS).map(|_| random.beta(2.0, 6.0)).sum::<f64>() / DRAWS as f64;
    assert!((mean - 0.25).abs() < 5.0 * (0.25 * 0.75 / 9.0 / DRAWS as f64).sqrt());
    for (a, b) in [(1e-300, 1e-300), (1e-5, 1e5), (1e300, 1e-3), (1e15, 1e15)] {
        assert!((0..100).all(|_| (0.0..=1.0).contains(&random.beta(a, b))), "{a} {b}");
    }
    assert!(random.beta(0.0, 1.0).is_nan() && random.beta(1.0, f64::INFINITY).is_nan());
}

#[test]
fn streams_of_a_seed_differ_and_repeat() {
    let first = |seed, index| Random::stream(seed, index).next_u64();
    let mut all: Vec<u64> = (0..100).flat_map(|seed| (0..100).map(move |index| first(seed, index))).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 10_000);
    assert_eq!(first(5, 7), first(5, 7));
    assert_eq!(Random::new(5), Random::stream(5, 0));
    let mut order = Random::new(1).permutation(50);
    assert_ne!(order, (0..50).collect::<Vec<_>>());
    order.sort_unstable();
    assert_eq!(order, (0..50).collect::<Vec<_>>());
}

#[test]
fn spec_augment_is_distributed_as_torchlibrosas() {
    let golden = golden("augment.safetensors");
    let config = SpecAugment { time_drop_width: 12, time_stripes: 2, freq_drop_width: 5, freq_stripes: 3 };
    let mut random = Random::new(21);
    let (mut time, mut freq) = (vec![0usize; 40], vec![0usize; 24]);
    let mut widths = [0usize; 12];
    for _ in 0..DRAWS {
        let stripes = config.stripes(40, 24, &mut random).unwrap();
        assert_eq!((stripes.time.len(), stripes.freq.len()), (2, 3));
        assert!(stripes.time.iter().all(|s| s.len() < 12 && s.end < 40 && s.start <= s.end));
        assert!(stripes.freq.iter().all(|s| s.len() < 5 && s.end < 24));
        (0..40).filter(|t| stripes.time.iter().any(|s| s.contains(t))).for_each(|t| time[t] += 1);
        (0..24).filter(|k| stripes.freq.iter().any(|s| s.contains(k))).for_each(|k| freq[k] += 1);
        widths[stripes.time[0].len()] += 1;
    }
    widths.iter().for_each(|&n| same_share("width", n as f64 / DRAWS as f64, 1.0 / 12.0, 1.0));
    for (name, counts, drop_width, stripes) in [("spec.time", &time, 12usize, 2), ("spec.freq", &freq, 5, 3)] {
        let reference = golden.to_vec(name).unwrap();
        for (place, (&count, &theirs)) in counts.iter().zip(&reference).enumerate() {
            let share = count as f64 / DRAWS as f64;
            same_share(&format!("{name} {place}"), share, f64::from(theirs), 2.0);
            // The probability that one stripe spares a position, over all widths and starts.
            let starts = |width: usize| counts.len() - width;
            let hits =
                |width: usize| (0..starts(width)).filter(|&start| (start..start + width).contains(&place)).count();
            let hit: f64 = (0..drop_width).map(|w| hits(w) as f64 / starts(w) as f64 / drop_width as f64).sum();
            same_share(&format!("{name} {place}"), share, 1.0 - (1.0 - hit).powi(stripes), 1.0);
        }
    }
}

#[test]
fn spec_augment_masks_exactly_its_stripes() {
    let shape = (5, 2, 90, 16);
    let data = hashed("x", 5 * 2 * 90 * 16, -2.0, 2.0, 9);
    for dtype in [DType::F32, DType::F64] {
        let x = Tensor::from_vec(data.clone(), shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let masked = SpecAugment::PANNS.forward(&x, &mut Random::new(4)).unwrap();
        assert_eq!(masked.dtype(), dtype);
        let masked = values(&masked.to_dtype(DType::F32).unwrap());
        let mut random = Random::new(4);
        for clip in 0..5 {
            let stripes = SpecAugment::PANNS.stripes(90, 16, &mut random).unwrap();
            let mut host = Array2::from_shape_fn((90, 16), |(t, k)| data[((clip * 2) * 90 + t) * 16 + k]);
            for (channel, t, k) in (0..2).flat_map(|c| (0..90).flat_map(move |t| (0..16).map(move |k| (c, t, k)))) {
                let place = ((clip * 2 + channel) * 90 + t) * 16 + k;
                let off = stripes.time.iter().any(|s| s.contains(&t)) || stripes.freq.iter().any(|s| s.contains(&k));
                assert_eq!(masked[place], if off { 0.0 } else { data[place] }, "clip {clip}, frame {t}, band {k}");
            }
            if clip == 0 {
                SpecAugment::PANNS.apply(&mut host, &mut Random::new(4)).unwrap();
                assert_eq!(host.as_slice().unwrap(), &masked[..90 * 16]);
            }
        }
    }
    let none = SpecAugment { time_drop_width: 1, time_stripes: 9, freq_drop_width: 0, freq_stripes: 9 };
    let x = Tensor::from_vec(data.clone(), shape, &Device::Cpu).unwrap();
    assert_eq!(values(&none.forward(&x, &mut Random::new(4)).unwrap()), data);
}

#[test]
fn spec_augment_is_differentiable() {
    let x = Var::from_vec(hashed("x", 3 * 70 * 16, -2.0, 2.0, 9), (3, 1, 70, 16), &Device::Cpu).unwrap();
    let masked = SpecAugment::PANNS.forward(&x, &mut Random::new(4)).unwrap();
    let gradients = (&masked * 3.0).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = values(gradients.get(&x).unwrap());
    let masked = values(&masked);
    assert!(gradient.iter().zip(&masked).all(|(&g, &m)| g == if m == 0.0 { 0.0 } else { 3.0 }));
    assert!(gradient.contains(&0.0) && gradient.contains(&3.0));
}

#[test]
fn spec_augment_hostile_inputs() {
    let mut random = Random::new(1);
    let wide = SpecAugment { time_drop_width: usize::MAX, time_stripes: 3, freq_drop_width: 64, freq_stripes: 3 };
    for (n_frames, n_mels) in [(0, 0), (1, 1), (2, 3), (0, 5), (7, 0)] {
        let x = Tensor::ones((2, 1, n_frames, n_mels), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(wide.forward(&x, &mut random).unwrap().dims(), x.dims());
        wide.apply(&mut Array2::ones((n_frames, n_mels)), &mut random).unwrap();
    }
    let x = Tensor::ones((2, 5, 5), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(refused(wide.forward(&x, &mut random)), "x.dims()");
    let many = SpecAugment { freq_stripes: usize::MAX, ..wide };
    assert_eq!(refused(many.apply(&mut Array2::ones((9, 9)), &mut random)), "freq_stripes");
    let nan = Tensor::full(f32::NAN, (1, 1, 40, 8), &Device::Cpu).unwrap();
    let masked = values(&SpecAugment::PANNS.forward(&nan, &mut random).unwrap());
    assert!(masked.iter().all(|x| x.is_nan() || *x == 0.0) && masked.contains(&0.0));
}

#[test]
fn mixup_mixes_according_to_its_plan() {
    let data = hashed("x", 6 * 5, -2.0, 2.0, 9);
    let x = Tensor::from_vec(data.clone(), (6, 5), &Device::Cpu).unwrap();
    let labels = Tensor::eye(6, DType::F32, &Device::Cpu).unwrap();
    for pairing in [MixupPairing::Neighbours, MixupPairing::Shuffled] {
        let plan = Mixup { alpha: 0.4, pairing }.plan(6, &mut Random::new(8)).unwrap();
        let n = if pairing == MixupPairing::Neighbours { 3 } else { 6 };
        assert_eq!(plan.lambda.len(), n);
        match pairing {
            MixupPairing::Neighbours => {
                assert_eq!((&plan.first[..], &plan.second[..]), (&[0, 2, 4][..], &[1, 3, 5][..]))
            }
            MixupPairing::Shuffled => {
                let mut second = plan.second.clone();
                second.sort_unstable();
                assert_eq!((&plan.first, second), (&vec![0, 1, 2, 3, 4, 5], vec![0, 1, 2, 3, 4, 5]));
            }
            other => panic!("{other:?}"),
        }
        let (mixed, mixed_labels) = (plan.apply(&x).unwrap(), plan.apply(&labels).unwrap());
        assert_eq!((mixed.dims(), mixed_labels.dims()), (&[n, 5][..], &[n, 6][..]));
        let (mixed, mixed_labels) = (values(&mixed), values(&mixed_labels));
        for i in 0..n {
            let (a, b, lambda) = (plan.first[i] as usize, plan.second[i] as usize, plan.lambda[i]);
            (0..5).for_each(|k| {
                assert_eq!(mixed[i * 5 + k], data[a * 5 + k] * lambda + data[b * 5 + k] * (1.0 - lambda));
            });
            assert!((mixed_labels[i * 6..][..6].iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(a == b || mixed_labels[i * 6 + a] == lambda);
        }
        assert_eq!(plan, Mixup { alpha: 0.4, pairing }.plan(6, &mut Random::new(8)).unwrap());
    }
}

#[test]
fn mixup_is_differentiable() {
    let x = Var::from_vec(hashed("x", 4 * 3 * 2, -2.0, 2.0, 9), (4, 3, 2), &Device::Cpu).unwrap();
    let plan = Mixup::PANNS.plan(4, &mut Random::new(2)).unwrap();
    let gradients = plan.apply(&x).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = values(gradients.get(&x).unwrap());
    for row in 0..4 {
        let lambda = plan.lambda[row / 2];
        let expected = if row % 2 == 0 { lambda } else { 1.0 - lambda };
        assert!(gradient[row * 6..][..6].iter().all(|g| *g == expected));
    }
}

#[test]
fn mixup_hostile_inputs() {
    let mut random = Random::new(1);
    let shuffled = Mixup { alpha: 1.0, pairing: MixupPairing::Shuffled };
    assert_eq!(refused(Mixup::PANNS.plan(5, &mut random)), "batch");
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(Mixup { alpha, ..shuffled }.plan(4, &mut random)), "alpha");
    }
    let plan = shuffled.plan(4, &mut random).unwrap();
    let x = Tensor::zeros((3, 2), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(refused(plan.apply(&x)), "x.dims()");
    assert_eq!(refused(plan.apply(&Tensor::new(1f32, &Device::Cpu).unwrap())), "x.dims()");
    assert_eq!(refused(plan.apply(&Tensor::zeros((4, 2), DType::U32, &Device::Cpu).unwrap())), "x.dtype()");
    let uneven = MixupPlan { lambda: vec![0.5], ..plan };
    assert_eq!(refused(uneven.apply(&Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap())), "lambda.len()");
    // A view with other strides.
    let x = Tensor::arange(0f32, 8.0, &Device::Cpu).unwrap().reshape((2, 4)).unwrap().t().unwrap();
    let half = MixupPlan { first: vec![0], second: vec![3], lambda: vec![0.5] };
    assert_eq!(values(&half.apply(&x).unwrap()), [1.5, 5.5]);
    assert!(shuffled.plan(0, &mut random).unwrap().lambda.is_empty());
}

#[test]
fn noise_has_the_requested_ratio() {
    let clip = common::signal(16_000, 16_000, 9);
    let energy = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    let ratio = |noisy: &[f32]| {
        let noise = energy(&mut noisy.iter().zip(&clip).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        10.0 * (energy(&mut clip.iter().map(|x| f64::from(*x))) / noise).log10()
    };
    let recording = common::signal(3_001, 16_000, 5);
    for snr_db in [-20.0, 0.0, 3.5, 20.0, 60.0] {
        let mut noisy = clip.clone();
        add_gaussian_noise(&mut noisy, snr_db, &mut Random::new(6)).unwrap();
        // Rounding to f32 adds noise some 150 dB below the clip.
        assert!((ratio(&noisy) - snr_db).abs() < 1e-3, "{snr_db}: {}", ratio(&noisy));
        let noise: Vec<f64> = noisy.iter().zip(&clip).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let deviation = (energy(&mut noise.iter().copied()) / noise.len() as f64).sqrt();
        let within = noise.iter().filter(|x| x.abs() < deviation).count() as f64 / noise.len() as f64;
        assert!((within - 0.6827).abs() < 0.02, "{within}");

        let mut noisy = clip.clone();
        add_noise(&mut noisy, &recording, snr_db).unwrap();
        assert!((ratio(&noisy) - snr_db).abs() < 1e-3);
        let scale = (noisy[7] - clip[7]) / recording[7];
        assert!(
            (noisy[3_001 + 7] - clip[3_001 + 7] - scale * recording[7]).abs() < 1e-3 * (scale * recording[7]).abs()
        );
    }
}

#[test]
fn noise_hostile_inputs() {
    let mut random = Random::new(6);
    for snr_db in [f64::NAN, -101.0, f64::NEG_INFINITY] {
        assert_eq!(refused(add_gaussian_noise(&mut [0.5], snr_db, &mut random)), "snr_db");
    }
    let mut clip = [0.5, f32::NAN];
    assert!(matches!(add_gaussian_noise(&mut clip, 0.0, &mut random), Err(Error::NonFinite { index: 1, .. })));
    assert!(matches!(add_noise(&mut [0.5], &[f32::INFINITY], 0.0), Err(Error::NonFinite { index: 0, .. })));
    assert!(matches!(add_noise(&mut [0.5], &[], 0.0), Err(Error::TooShort { needed: 1, got: 0 })));
    let mut clip = [0.25f32; 4];
    add_gaussian_noise(&mut clip, f64::INFINITY, &mut random).unwrap();
    add_noise(&mut clip, &[0.0; 3], 0.0).unwrap();
    assert_eq!(clip, [0.25; 4]);
    let mut silence = [0.0f32; 4];
    add_gaussian_noise(&mut silence, 0.0, &mut random).unwrap();
    assert_eq!(silence, [0.0; 4]);
    add_gaussian_noise(&mut [], 0.0, &mut random).unwrap();
    let mut loud = [f32::MAX; 100];
    add_gaussian_noise(&mut loud, -100.0, &mut random).unwrap();
    assert!(loud.iter().all(|x| x.is_finite()));
}

#[test]
fn shifts() {
    let moved = |by, fill| {
        let mut clip = [1.0, 2.0, 3.0, 4.0];
        shift(&mut clip, by, fill);
        clip
    };
    for (by, zeros, wrapped) in [
        (0, [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
        (1, [0.0, 1.0, 2.0, 3.0], [4.0, 1.0, 2.0, 3.0]),
        (-1, [2.0, 3.0, 4.0, 0.0], [2.0, 3.0, 4.0, 1.0]),
        (3, [0.0, 0.0, 0.0, 1.0], [2.0, 3.0, 4.0, 1.0]),
        (4, [0.0; 4], [1.0, 2.0, 3.0, 4.0]),
        (-4, [0.0; 4], [1.0, 2.0, 3.0, 4.0]),
        (isize::MAX, [0.0; 4], [2.0, 3.0, 4.0, 1.0]),
        (isize::MIN, [0.0; 4], [1.0, 2.0, 3.0, 4.0]),
    ] {
        assert_eq!(moved(by, ShiftFill::Zeros), zeros, "{by}");
        assert_eq!(moved(by, ShiftFill::Wrap), wrapped, "{by}");
    }
    shift(&mut [], 5, ShiftFill::Wrap);

    let mut random = Random::new(13);
    let mut counts = [0usize; 7];
    for _ in 0..DRAWS {
        let mut clip = [1.0, 2.0, 3.0, 4.0, 5.0];
        let by = random_shift(&mut clip, 3, ShiftFill::Wrap, &mut random);
        assert_eq!(clip[by.rem_euclid(5) as usize], 1.0);
        counts[(by + 3) as usize] += 1;
    }
    counts.iter().for_each(|&n| same_share("shift", n as f64 / DRAWS as f64, 1.0 / 7.0, 1.0));
    random_shift(&mut [1.0], usize::MAX, ShiftFill::Zeros, &mut random);
}
