//! Random changes of bytes, for targets without a fuzzer behind them, and the source of randomness of all.

/// Changes bytes that have no structure: libFuzzer's mutations, or [`change`].
pub type Bytewise<'a> = &'a mut dyn FnMut(&mut Vec<u8>);

/// Random numbers: SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.bits() % n.max(1) as u64).unwrap_or(0)
    }

    /// One of the values.
    pub fn one_of<'a, T: ?Sized>(&mut self, values: &[&'a T]) -> &'a T {
        values[self.below(values.len())]
    }
}

/// Numbers, words and bytes at the edges of what readers take.
pub const ODD: &[&str] = &[
    "18446744073709551615",
    "9223372036854775807",
    "9007199254740993",
    "4294967295",
    "4294967296",
    "-1",
    "1e308",
    "1e999",
    "0",
    "1",
    "0.5",
    "nan",
    "null",
    "\"x\"",
    "[]",
    "\u{1b}]0;x\u{7}",
    "\n",
    "\0",
    "\u{202e}",
    "\u{e4}",
];

/// Changes bytes at one place.
pub fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(8)).min(bytes.len());
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let odd = random.one_of(ODD);
            bytes.splice(at..end, odd.bytes());
        }
        3 => {
            let from = random.below(bytes.len() + 1);
            let some = bytes[from..].iter().take(1 + random.below(64)).copied().collect::<Vec<_>>();
            bytes.splice(at..at, some);
        }
        4 => bytes.truncate(at),
        _ => {
            let byte = u8::try_from(random.below(256)).unwrap_or(0);
            bytes.splice(at..end, std::iter::repeat_n(byte, 1 + random.below(16)));
        }
    }
}
