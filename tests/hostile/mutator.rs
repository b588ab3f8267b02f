//! Mutates good inputs into hostile ones; deterministic for each seed.

/// Prefixes that parsers stumble over: CBOR (long arrays and strings, deep nesting), JSON, HTTP, numbers.
const WORDS: [&[u8]; 22] = [
    b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x5a\xff\xff\xff\xff",
    b"\x9a\x10\x00\x00\x00",
    b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xbf",
    b"\x9f",
    b"\xff",
    b"\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81",
    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x00\x00\x00\x00\x00\x00\x00",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"1e999999999",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":",
    b"\\ud800",
    b"\r\n--XX\r\n",
    b"%ff%00%2f",
    b"\xf5S3J",
];

/// Longer inputs are truncated.
const LENGTH: usize = 64 << 10;

pub struct Mutator {
    state: u64,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self { state: seed | 1 << 40, seeds }
    }

    /// A random number below `end`, by xorshift64.
    pub fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state >> 11).unwrap_or(0) % end.max(1)
    }

    /// The next input.
    pub fn next(&mut self) -> Vec<u8> {
        let at = self.below(self.seeds.len());
        let bytes = self.seeds[at].clone();
        self.changed(bytes)
    }

    /// Applies a few changes, one after the other.
    pub fn changed(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            self.change(&mut bytes);
        }
        bytes.truncate(LENGTH.max(self.seeds.iter().map(Vec::len).max().unwrap_or(0)));
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let length = self.below(16) + 1;
        let end = (at + length).min(bytes.len());
        match self.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap_or(0),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let again = bytes[at..end].repeat(self.below(8) + 1);
                drop(bytes.splice(at..at, again));
            }
            5 => {
                let word = WORDS[self.below(WORDS.len())];
                drop(bytes.splice(at..at, word.iter().copied()));
            }
            6 => {
                let word = WORDS[self.below(WORDS.len())];
                let end = (at + word.len()).min(bytes.len());
                drop(bytes.splice(at..end, word.iter().copied()));
            }
            7 => {
                let noise: Vec<u8> =
                    (0..length).map(|_| u8::try_from(self.below(256)).unwrap_or(0)).collect();
                drop(bytes.splice(at..end, noise));
            }
            _ => {
                let other = self.below(self.seeds.len());
                let from = self.below(self.seeds[other].len() + 1);
                let tail = self.seeds[other][from..].to_vec();
                drop(bytes.splice(at.., tail));
            }
        }
    }
}
