//! Collects one thing from every core: parts of a cut, lists of an epoch, questions that all cores ask alike.
//!
//! Invariant: a core's next part comes only after the set with its last one was complete, or waits in its turn.

use std::collections::VecDeque;

/// The parts that have come, by core.
#[derive(Debug)]
pub struct Gather<T> {
    parts: Vec<VecDeque<T>>,
}

impl<T> Gather<T> {
    /// Collects from `cores` cores.
    ///
    /// # Panics
    /// When `cores` is 0.
    pub fn new(cores: usize) -> Self {
        assert!(cores > 0, "an engine has at least one core");
        Self { parts: (0..cores).map(|_| VecDeque::new()).collect() }
    }

    /// Takes a core's part; gives the parts of all cores, by core, when this was the last one missing.
    pub fn put(&mut self, core: usize, part: T) -> Option<Vec<T>> {
        self.parts[core].push_back(part);
        if self.parts.iter().any(VecDeque::is_empty) {
            return None;
        }
        Some(self.parts.iter_mut().filter_map(VecDeque::pop_front).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_complete_when_every_core_has_put_its_part() {
        let mut gather = Gather::new(3);
        assert_eq!(gather.put(1, "b"), None);
        assert_eq!(gather.put(2, "c"), None);
        assert_eq!(gather.put(2, "C"), None, "the next set");
        assert_eq!(gather.put(0, "a"), Some(vec!["a", "b", "c"]));
        assert_eq!(gather.put(0, "A"), None);
        assert_eq!(gather.put(1, "B"), Some(vec!["A", "B", "C"]));
        assert_eq!(Gather::new(1).put(0, 7), Some(vec![7]));
    }
}
