//! A list that stays short: neighbours are merged, the same number each.

/// Parts of a recording in the order of its intervals.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Course<T> {
    parts: Vec<T>,
    /// intervals per part
    each: usize,
    /// intervals in the last part
    last: usize,
}

impl<T> Default for Course<T> {
    fn default() -> Self {
        Self { parts: Vec::new(), each: 1, last: 0 }
    }
}

impl<T> Course<T> {
    /// Adds the next interval.
    pub(crate) fn add(&mut self, part: T, merge: impl FnOnce(&mut T, T)) {
        match self.parts.last_mut() {
            Some(last) if self.last < self.each => {
                merge(last, part);
                self.last += 1;
            }
            _ => {
                self.parts.push(part);
                self.last = 1;
            }
        }
    }

    /// Merges pairs of neighbours, and as many more of the intervals to come.
    pub(crate) fn halve(&mut self, mut merge: impl FnMut(&mut T, T)) {
        self.last += if self.parts.len().is_multiple_of(2) { self.each } else { 0 };
        self.each *= 2;
        let mut parts = std::mem::take(&mut self.parts).into_iter();
        while let Some(mut first) = parts.next() {
            parts.next().into_iter().for_each(|second| merge(&mut first, second));
            self.parts.push(first);
        }
    }

    /// The parts.
    pub(crate) fn parts(&self) -> &[T] {
        &self.parts
    }

    /// The parts, to change them in place.
    pub(crate) fn parts_mut(&mut self) -> &mut [T] {
        &mut self.parts
    }

    /// The last part.
    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        self.parts.last_mut()
    }

    /// The parts alone.
    pub(crate) fn into_parts(self) -> Vec<T> {
        self.parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_but_the_last_has_as_many_intervals() {
        let mut course = Course::default();
        for n in 1..=1000 {
            course.add(1, |a, b| *a += b);
            while course.parts().len() > 8 {
                course.halve(|a, b| *a += b);
            }
            let (last, others) = course.parts().split_last().unwrap();
            assert_eq!(course.parts().iter().sum::<usize>(), n);
            assert!(others.iter().all(|part| *part == others[0] && last <= part), "{n}: {:?}", course.parts());
            assert!(n < 8 || others.len() >= 4);
        }
    }
}
