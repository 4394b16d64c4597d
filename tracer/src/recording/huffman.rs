//! Huffman codes for the symbols of a deflated block.

/// Bits of the longest code of a block.
const LONGEST: usize = 15;

/// A code. Its memory is used again.
#[derive(Default)]
pub(super) struct Code {
    /// by symbol: bits of its code; 0 for none
    lengths: Vec<u8>,
    /// by symbol: its code, the first bit lowest
    codes: Vec<u16>,
    /// by node: the symbols that occur, ascending by frequency, then the pairs of two nodes that were made of them, then the root
    weights: Vec<u64>,
    parents: Vec<u16>,
    by_frequency: Vec<(u32, u16)>,
}

impl Code {
    /// Makes the shortest code with at most `longest` bits, up to 15, for symbols of these frequencies, of which two are above 0 and at most
    /// 288 are. Where a code would be longer, it is the shortest for frequencies that differ less.
    pub(super) fn make(&mut self, frequencies: &[u32], longest: u8) {
        self.by_frequency.clear();
        let symbols = (0..).zip(frequencies).filter(|(_, n)| **n > 0).map(|(symbol, n)| (*n, symbol));
        self.by_frequency.extend(symbols);
        self.by_frequency.sort_unstable();
        while !self.fits(frequencies.len(), longest) {
            self.by_frequency.iter_mut().for_each(|(n, _)| *n = n.div_ceil(2));
        }
        self.assign();
    }

    /// Gives each symbol its length; returns whether none is longer than it may be.
    fn fits(&mut self, symbols: usize, longest: u8) -> bool {
        let leaves = self.by_frequency.len();
        self.weights.clear();
        self.weights.extend(self.by_frequency.iter().map(|(n, _)| u64::from(*n)));
        self.parents.clear();
        self.parents.resize(2 * leaves - 1, 0);
        // Pairs are made in ascending order of weight, so that the lightest node is the next symbol or the next pair.
        let (mut leaf, mut pair) = (0, leaves);
        for parent in leaves..2 * leaves - 1 {
            let mut weight = 0;
            for _ in 0..2 {
                let is_leaf = leaf < leaves && (pair == parent || self.weights[leaf] <= self.weights[pair]);
                let next = if is_leaf { &mut leaf } else { &mut pair };
                weight += self.weights[*next];
                #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2 * 288 nodes")]
                let number = parent as u16;
                self.parents[*next] = number;
                *next += 1;
            }
            self.weights.push(weight);
        }
        // A node is a bit deeper than its parent, which comes after it. The depths take the weights' places.
        if let Some(root) = self.weights.last_mut() {
            *root = 0;
        }
        for node in (0..self.parents.len() - 1).rev() {
            self.weights[node] = self.weights[usize::from(self.parents[node])] + 1;
        }
        self.lengths.clear();
        self.lengths.resize(symbols, 0);
        let mut fits = true;
        for ((_, symbol), depth) in self.by_frequency.iter().zip(&self.weights) {
            let length = u8::try_from(*depth).unwrap_or(u8::MAX);
            fits &= length <= longest;
            self.lengths[usize::from(*symbol)] = length;
        }
        fits
    }

    /// Gives each symbol its code (RFC 1951, 3.2.2).
    fn assign(&mut self) {
        let mut of_length = [0u16; LONGEST + 1];
        self.lengths.iter().filter(|length| **length > 0).for_each(|length| of_length[usize::from(*length)] += 1);
        let mut next = [0u16; LONGEST + 1];
        for length in 1..LONGEST {
            next[length + 1] = (next[length] + of_length[length]) << 1;
        }
        self.codes.clear();
        self.codes.extend(self.lengths.iter().map(|&length| {
            let code = &mut next[usize::from(length)];
            *code = code.wrapping_add(1);
            // None has a length of 0.
            (*code - 1).reverse_bits().checked_shr(16 - u32::from(length)).unwrap_or(0)
        }));
    }

    /// By symbol: bits of its code; 0 for none.
    pub(super) fn lengths(&self) -> &[u8] {
        &self.lengths
    }

    /// The code of a symbol, the first bit lowest, and its number of bits.
    #[inline]
    pub(super) fn of(&self, symbol: u16) -> (u32, u32) {
        let at = usize::from(symbol);
        (self.codes[at].into(), self.lengths[at].into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_complete_prefix_free_and_as_short_as_it_can_be() {
        // Of Fibonacci numbers, each code is a bit longer than the next one.
        let mut fibonacci = vec![1, 1];
        (2..30).for_each(|at| fibonacci.push(fibonacci[at - 1] + fibonacci[at - 2]));
        let some = vec![0, 5, 9, 0, 12, 13, 16, 45, 0];
        let mut code = Code::default();
        for (frequencies, longest, bits) in
            [(some, 15, Some(224)), (vec![1; 286], 15, None), (vec![3, 3], 7, Some(6)), (fibonacci, 15, None)]
        {
            code.make(&frequencies, longest);
            let used = || (0..).zip(&frequencies).filter(|(_, n)| **n > 0);
            let shares: f64 = used().map(|(symbol, _)| 0.5f64.powi(code.of(symbol).1.try_into().unwrap())).sum();
            assert!((shares - 1.0).abs() < 1e-12, "{shares}");
            for (a, _) in used() {
                assert!((1..=u32::from(longest)).contains(&code.of(a).1));
                for (b, _) in used().filter(|(b, _)| *b != a) {
                    let ((a, length), (b, _)) = (code.of(a), code.of(b));
                    assert_ne!(a, b & ((1 << length) - 1));
                }
            }
            let all: u32 = used().map(|(symbol, n)| n * code.of(symbol).1).sum();
            assert!(bits.is_none_or(|bits| bits == all), "{all} bits");
            assert!(code.lengths().iter().zip(&frequencies).all(|(length, n)| (*length > 0) == (*n > 0)));
        }
    }
}
