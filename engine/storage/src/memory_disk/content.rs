//! The bytes of a file on the memory disk, by sector, shared between copies.
//!
//! Not what of them is durable, which is [`Inode`](super::inode::Inode)'s. Invariants: a sector of zeros takes no
//! memory, so that fresh segments and copies of whole disks cost next to nothing; bytes behind the length are zero.

use std::sync::Arc;

pub(super) const SECTOR_BYTES: usize = 512;

/// A sector; none is all zeros.
pub(super) type Sector = Option<Arc<[u8; SECTOR_BYTES]>>;

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    sectors: Vec<Sector>,
    len: usize,
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.grow(bytes.len());
        content.write(bytes, 0);
        content
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Lengthens the file by zeros.
    pub(super) fn grow(&mut self, len: usize) {
        if len > self.len {
            self.len = len;
            self.sectors.resize(len.div_ceil(SECTOR_BYTES), None);
        }
    }

    pub(super) fn sector(&self, number: usize) -> Sector {
        self.sectors.get(number).cloned().flatten()
    }

    /// Replaces a sector, as far as it lies within the length.
    pub(super) fn set_sector(&mut self, number: usize, sector: Sector) {
        let start = number * SECTOR_BYTES;
        if start >= self.len {
            return;
        }
        let inside = (self.len - start).min(SECTOR_BYTES);
        self.sectors[number] = match sector {
            Some(bytes) if inside < SECTOR_BYTES => {
                let mut bytes = *bytes;
                bytes[inside..].fill(0);
                Some(Arc::new(bytes))
            }
            sector => sector,
        };
    }

    /// Fills the buffer, or as much of it as there is before the end; says how much.
    pub(super) fn read(&self, buffer: &mut [u8], offset: usize) -> usize {
        let wanted = buffer.len().min(self.len.saturating_sub(offset));
        for (number, at, from) in pieces(offset, wanted) {
            let piece = &mut buffer[at..at + from.len()];
            match &self.sectors[number] {
                Some(sector) => piece.copy_from_slice(&sector[from]),
                None => piece.fill(0),
            }
        }
        wanted
    }

    /// Writes bytes that lie within the length.
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        for (number, at, into) in pieces(offset, bytes.len()) {
            let piece = &bytes[at..at + into.len()];
            let sector = &mut self.sectors[number];
            if *piece == [0; SECTOR_BYTES][..piece.len()] && (sector.is_none() || into.len() == SECTOR_BYTES) {
                *sector = None;
                continue;
            }
            let mut whole = sector.as_deref().copied().unwrap_or([0; SECTOR_BYTES]);
            whole[into].copy_from_slice(piece);
            *sector = Some(Arc::new(whole));
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(&mut bytes, 0);
        bytes
    }
}

/// The sectors of a range: number, place in the buffer, and the bytes within the sector.
fn pieces(offset: usize, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let end = offset + len;
    (offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)).filter(move |_| len > 0).map(move |number| {
        let start = number * SECTOR_BYTES;
        let from = offset.max(start) - start..end.min(start + SECTOR_BYTES) - start;
        (number, start + from.start - offset, from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_disk::random::Random;

    #[test]
    fn it_reads_what_a_plain_vector_would() {
        let (mut random, mut content, mut model) = (Random(3), Content::default(), Vec::new());
        for _ in 0..500 {
            let offset = random.below(3000) as usize;
            let byte = random.below(3) as u8;
            let bytes = vec![byte; random.below(1500) as usize];
            let end = offset + bytes.len();
            content.grow(end);
            model.resize(model.len().max(end), 0);
            content.write(&bytes, offset);
            model[offset..end].copy_from_slice(&bytes);
            assert_eq!(content.to_vec(), model);
            let mut buffer = vec![7; 700];
            let at = random.below(4000) as usize;
            let read = content.read(&mut buffer, at);
            assert_eq!(buffer[..read], model[at.min(model.len())..][..read]);
            assert_eq!(read, 700.min(model.len().saturating_sub(at)));
        }
    }
}
