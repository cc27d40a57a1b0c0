//! The video ids of one shard by slot.
//!
//! Not the live table, which also finds slots by id. Invariant: slots run from 0 without gaps.

/// Every so many ids the start of one is kept.
const STRIDE: usize = 64;

/// The ids of one shard, by slot.
#[derive(Clone, Debug, Default)]
pub struct ShardIdList {
    lens: Vec<u8>,
    bytes: Vec<u8>,
    /// Start in `bytes` of every [`STRIDE`]th id.
    starts: Vec<usize>,
}

impl ShardIdList {
    /// Number of ids; their slots are those below it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.lens.len()
    }

    /// Whether the shard has no id.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// The id of a slot, `None` beyond the last.
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<&str> {
        let slot = slot as usize;
        let len = usize::from(*self.lens.get(slot)?);
        let first = slot - slot % STRIDE;
        let before: usize = self.lens[first..slot].iter().map(|len| usize::from(*len)).sum();
        let start = self.starts[slot / STRIDE] + before;
        std::str::from_utf8(&self.bytes[start..start + len]).ok()
    }

    /// Adds ids in slot order. Whether each is text was not checked before: `false` where one is not, and nothing is
    /// added then.
    #[must_use]
    pub(crate) fn push(&mut self, lens: &[u8], bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for len in lens {
            let Some((id, tail)) = rest.split_at_checked(usize::from(*len)) else { return false };
            if std::str::from_utf8(id).is_err() {
                return false;
            }
            rest = tail;
        }
        if !rest.is_empty() {
            return false;
        }
        let mut start = self.bytes.len();
        for len in lens {
            if self.lens.len().is_multiple_of(STRIDE) {
                self.starts.push(start);
            }
            self.lens.push(*len);
            start += usize::from(*len);
        }
        self.bytes.extend_from_slice(bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_by_its_slot() {
        let mut list = ShardIdList::default();
        let ids: Vec<String> = (0..500).map(|index| format!("video-{}", "x".repeat(index % 37))).collect();
        for some in ids.chunks(77) {
            let lens: Vec<u8> = some.iter().map(|id| id.len() as u8).collect();
            assert!(list.push(&lens, some.concat().as_bytes()));
        }
        assert_eq!(list.len(), ids.len());
        for (slot, id) in ids.iter().enumerate() {
            assert_eq!(list.get(slot as u32), Some(id.as_str()));
        }
        assert_eq!(list.get(500), None);
    }

    #[test]
    fn what_is_no_text_is_not_taken() {
        let mut list = ShardIdList::default();
        assert!(!list.push(&[1, 1], b"a\xff"));
        assert!(!list.push(&[1], b"ab"));
        assert!(!list.push(&[3], b"ab"));
        assert!(list.is_empty());
    }
}
