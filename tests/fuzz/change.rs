//! How an input is made from another one.

use fastrand::Rng;

/// Numbers at which lengths and counts go wrong.
const NUMBERS: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];

/// Changes `input` in one to four ways; `other` is one that pieces may be taken from.
pub(crate) fn change(input: &mut Vec<u8>, other: &[u8], dice: &mut Rng) {
    for _ in 0..=dice.u8(..4) {
        match dice.u8(..9) {
            0 => flip(input, dice),
            1 => replace(input, dice),
            2 => input.truncate(dice.usize(..=input.len())),
            3 => {
                let bytes: Vec<u8> = (0..dice.usize(1..16)).map(|_| dice.u8(..)).collect();
                let at = dice.usize(..=input.len());
                input.splice(at..at, bytes);
            }
            4 => {
                let cut = piece(input.len(), dice);
                input.drain(cut);
            }
            5 => {
                let copied = input[piece(input.len(), dice)].to_vec();
                let at = dice.usize(..=input.len());
                input.splice(at..at, copied);
            }
            6 => {
                let at = dice.usize(..=input.len());
                let taken = other[piece(other.len(), dice)].to_vec();
                input.splice(at..at, taken);
            }
            7 => {
                input.truncate(dice.usize(..=input.len()));
                input.extend_from_slice(&other[dice.usize(..=other.len())..]);
            }
            _ => number(input, dice),
        }
    }
}

fn flip(input: &mut [u8], dice: &mut Rng) {
    if !input.is_empty() {
        let at = dice.usize(..input.len());
        input[at] ^= 1 << dice.u8(..8);
    }
}

fn replace(input: &mut [u8], dice: &mut Rng) {
    if !input.is_empty() {
        let at = dice.usize(..input.len());
        input[at] = dice.u8(..);
    }
}

/// Writes a number over what may be a length or a count, in either order of bytes.
fn number(input: &mut [u8], dice: &mut Rng) {
    let width = 1 << dice.u8(..4);
    let Some(last) = input.len().checked_sub(width) else { return };
    let at = dice.usize(..=last);
    let left = (input.len() - at) as u64;
    let number = match dice.usize(..NUMBERS.len() + 3) {
        place if place < NUMBERS.len() => NUMBERS[place],
        place => (left + place as u64).wrapping_sub(NUMBERS.len() as u64 + 1),
    };
    let bytes = number.to_le_bytes();
    let to = &mut input[at..at + width];
    to.copy_from_slice(&bytes[..width]);
    if dice.bool() {
        to.reverse();
    }
}

fn piece(length: usize, dice: &mut Rng) -> std::ops::Range<usize> {
    let from = dice.usize(..=length);
    let most = (length - from).min(256);
    from..from + dice.usize(..=most)
}
