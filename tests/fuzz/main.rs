//! A bounded run of each target: inputs of `corpus/`, and as many made from them by chance.
//!
//! A run repeats itself exactly; `FUZZ_SEED` begins another one, and `FUZZ_INPUTS` makes it as
//! many times longer. An input that fails is printed: written to a file in the target's folder
//! of the corpus, it is run first from then on. `UPDATE=1` writes the inputs that `seeds` makes.

mod change;
mod seeds;

use std::{env, fmt::Write as _, fs, panic, path::PathBuf};

use fuzz::{TARGETS, Target};

/// Inputs that the target took and that are changed further, beside those of the corpus.
const TAKEN_MAX: usize = 256;

#[test]
fn envelope() {
    drive("envelope");
}

#[test]
fn exchange() {
    drive("exchange");
}

#[test]
fn machine() {
    drive("machine");
}

#[test]
fn link() {
    drive("link");
}

#[test]
fn peer_reply() {
    drive("peer_reply");
}

#[test]
fn peer_request() {
    drive("peer_request");
}

#[test]
fn purge() {
    drive("purge");
}

#[test]
fn every_target_is_driven_here_and_by_cargo_fuzz() {
    let manifest = fs::read_to_string(root().join("coverage/Cargo.toml")).expect("a manifest");
    let tests = include_str!("main.rs");
    for Target { name, .. } in TARGETS {
        assert!(tests.contains(&format!("drive(\"{name}\")")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

/// Runs what the corpus has for the target, and what is made from it.
fn drive(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    if env::var_os("UPDATE").is_some() {
        seeds::write(name, &root().join("corpus").join(name));
    }
    let mut pool = corpus(name);
    assert!(pool.len() >= 2, "the corpus has nothing for `{name}`");
    for input in &pool {
        attempt(target, 0, 0, input);
    }
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let inputs = u64::from(target.inputs) * number("FUZZ_INPUTS").unwrap_or(1);
    let mut dice = fastrand::Rng::with_seed(seed);
    let kept = pool.len();
    let mut taken = 0_u64;
    for count in 1..=inputs {
        let mut input = pool[dice.usize(..pool.len())].clone();
        let other = &pool[dice.usize(..pool.len())];
        change::change(&mut input, other, &mut dice);
        input.truncate(target.input_max);
        if !attempt(target, seed, count, &input) {
            continue;
        }
        taken += 1;
        // Some of what was taken is changed further: not only what is one step away from the
        // corpus is tried.
        if pool.len() < kept + TAKEN_MAX {
            pool.push(input);
        } else if dice.u8(..8) == 0 {
            let place = kept + dice.usize(..TAKEN_MAX);
            pool[place] = input;
        }
    }
    assert!(taken > inputs / 50, "only {taken} of {inputs} inputs got past the first checks");
}

/// Runs one input; fails with all that is needed to run it again.
fn attempt(target: &Target, seed: u64, count: u64, input: &[u8]) -> bool {
    let name = target.name;
    panic::catch_unwind(|| (target.run)(input)).unwrap_or_else(|_| {
        panic!("`{name}` failed, seed {seed}, input {count}: {}", hex(input));
    })
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("corpus").join(name);
    let files = fs::read_dir(folder).expect("a folder of the corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("an input")).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
