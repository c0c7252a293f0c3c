//! Every instruction set gives the same scores; `CLIPWISE_ISA` forces one.
#![cfg(feature = "bundled")]

use std::process::{Command, Output};

use clipwise::{OpenOptions, Precision, Tagger, Waveform};

/// Prints the scores of the telephone clip. The test below runs it in processes of its own, `.ci/aarch64` on another
/// processor.
#[test]
#[ignore = "prints scores for other tests"]
fn print_scores() {
    print(Precision::F32);
}

#[test]
#[ignore = "prints scores for other tests"]
fn print_int8_scores() {
    print(Precision::Int8);
}

fn print(precision: Precision) {
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/audio/telephone.wav");
    let tagger = Tagger::bundled_with(&OpenOptions::new().precision(precision)).unwrap();
    // The shortest decimals that read back as the same f32.
    println!("\nscores {:?}", tagger.tag(&Waveform::open(clip).unwrap()).unwrap().scores);
}

fn run(test: &str, level: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--ignored", "--exact", test, "--nocapture"]).env("CLIPWISE_ISA", level);
    let output = output.output().unwrap();
    assert!(output.status.success(), "{level}: {output:?}");
    output
}

fn scores(output: &Output) -> Vec<f32> {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("scores [")).unwrap();
    line.trim_end_matches(']').split(", ").map(|score| score.parse().unwrap()).collect()
}

#[test]
fn every_instruction_set_gives_the_same_scores() {
    // Products and sums are rounded separately with portable code.
    check("print_scores", 1e-5);
}

#[test]
fn every_instruction_set_gives_the_same_scores_in_8_bits() {
    // The products are the same, but a code may be rounded the other way.
    check("print_int8_scores", 0.02);
}

fn check(test: &str, tolerance: f32) {
    let run = |level: &str| run(test, level);
    let best = run("");
    assert!(best.stderr.is_empty(), "{best:?}");
    let best = scores(&best);
    assert_eq!(best.len(), 527);

    let unknown = run("sse9");
    let note = String::from_utf8_lossy(&unknown.stderr).into_owned();
    let names =
        note.strip_prefix("CLIPWISE_ISA: expected ").and_then(|note| note.split_once(", got \"sse9\"")).unwrap().0;
    assert_eq!(scores(&unknown), best);

    let levels: Vec<&str> = names.split(" or ").collect();
    let (portable, fused) = levels.split_last().unwrap();
    assert_eq!(*portable, "portable");
    for level in fused {
        assert_eq!(scores(&run(level)), best, "{level}");
    }
    let output = run(portable);
    assert!(output.stderr.is_empty(), "{output:?}");
    let worst = scores(&output).iter().zip(&best).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < tolerance, "portable differs by {worst:e}");
}
