//! Makes views: videos by a Zipf law, viewers, regions and devices, all from a seed.
//!
//! A batch's content is a pure function of (seed, batch number): the same arguments give the same views however they
//! are spread over producers. Times are not made here. Invariant: nothing is allocated per view, and equal indexes
//! always give equal ids, whatever the seed.

use highwater_proto::{FIELD_BYTES_MAX, View};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};

use crate::error::LoadError;
use crate::oracle::{VideoIds, VideoIndex};

/// Most distinct videos a generator can name.
pub const VIDEOS_MAX: u32 = u32::MAX - 1;
/// Bytes of a generated video id.
pub const VIDEO_ID_BYTES: usize = 11;
/// Bytes of a generated user id, unless another number is asked for.
pub const USER_ID_BYTES: usize = 12;
/// Distinct users that views are drawn from, uniformly.
pub const USERS: u32 = 4_000_000;
/// Bytes of the largest generated view in plain columns, length bytes included and the user id left out.
const VIEW_BYTES_MAX: usize = 8 + (1 + VIDEO_ID_BYTES) + 1 + (1 + 2) + (1 + 7);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const USER_SALT: u64 = 0x5bd1_e995_7b93_2f1d;

/// Regions by draw; repeated entries are likelier. A power of two of them.
const REGIONS: [&str; 32] = [
    "US", "US", "US", "US", "US", "IN", "IN", "IN", "IN", "BR", "BR", "BR", "JP", "JP", "DE", "DE", "GB", "GB", "FR",
    "FR", "MX", "ID", "TR", "KR", "IT", "ES", "CA", "AU", "NL", "PL", "AR", "ZA",
];
/// Devices by draw, as the regions.
const DEVICES: [&str; 16] = [
    "android", "android", "android", "android", "android", "ios", "ios", "ios", "ios", "desktop", "desktop", "desktop",
    "tv", "tv", "tablet", "console",
];

const _: () = assert!(REGIONS.len().is_power_of_two() && DEVICES.len().is_power_of_two());

/// The 11-character id of the video at `index`, characters `[A-Za-z0-9_-]`; distinct for distinct indexes.
#[must_use]
pub fn video_id(index: VideoIndex) -> [u8; VIDEO_ID_BYTES] {
    characters(mix(u64::from(index.0)))
}

/// The 12-character id of user `number`.
#[must_use]
pub fn user_id(number: u32) -> [u8; USER_ID_BYTES] {
    let mut id = [b'u'; USER_ID_BYTES];
    id[1..].copy_from_slice(&characters(mix(u64::from(number) ^ USER_SALT)));
    id
}

/// The id in the first so many bytes, over and over.
fn repeated(id: &[u8; USER_ID_BYTES], bytes: u8) -> [u8; FIELD_BYTES_MAX] {
    let mut filled = [0; FIELD_BYTES_MAX];
    for piece in filled[..bytes.into()].chunks_mut(USER_ID_BYTES) {
        piece.copy_from_slice(&id[..piece.len()]);
    }
    filled
}

/// A bijection of 64-bit numbers (the finaliser of SplitMix64), so distinct inputs stay distinct.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 64 bits as 11 characters of 6 bits, the lowest first: injective.
fn characters(mut bits: u64) -> [u8; VIDEO_ID_BYTES] {
    let mut out = [0; VIDEO_ID_BYTES];
    for character in &mut out {
        *character = ALPHABET[(bits & 63) as usize];
        bits >>= 6;
    }
    out
}

/// The ids of videos `0..count`, computed when asked.
#[derive(Debug, Clone, Copy)]
pub struct GeneratedIds {
    count: u32,
}

impl VideoIds for GeneratedIds {
    fn video_count(&self) -> u32 {
        self.count
    }

    fn write_id(&self, video: VideoIndex, out: &mut String) {
        out.extend(video_id(video).iter().map(|byte| char::from(*byte)));
    }
}

/// Draws views for numbered batches.
#[derive(Debug, Clone)]
pub struct ViewGenerator {
    videos: u32,
    exponent: f64,
    zipf: Zipf<f64>,
    seed: u64,
    user_bytes: u8,
}

impl ViewGenerator {
    /// A generator over `videos` videos whose popularity falls as rank to the power of minus `exponent` (0 = uniform).
    ///
    /// # Errors
    /// [`LoadError::Option`] for no videos, more than [`VIDEOS_MAX`], or an exponent that is negative or not finite.
    pub fn new(videos: u32, exponent: f64, seed: u64) -> Result<Self, LoadError> {
        if videos == 0 || videos > VIDEOS_MAX {
            return Err(LoadError::Option {
                option: "videos",
                value: videos.to_string(),
                reason: format!("1 to {VIDEOS_MAX} videos can be generated"),
            });
        }
        let invalid = |reason: String| LoadError::Option { option: "zipf", value: exponent.to_string(), reason };
        if !exponent.is_finite() || exponent < 0.0 {
            return Err(invalid("the exponent must be a number from 0 (uniform) upward".into()));
        }
        let zipf = Zipf::new(f64::from(videos), exponent).map_err(|error| invalid(error.to_string()))?;
        Ok(Self { videos, exponent, zipf, seed, user_bytes: USER_ID_BYTES as u8 })
    }

    /// As [`ViewGenerator::new`], with user ids of so many bytes; `None` is [`USER_ID_BYTES`]. A longer one repeats
    /// itself, of a shorter one the end is missing.
    ///
    /// # Errors
    /// As [`ViewGenerator::new`].
    pub fn with_user_bytes(videos: u32, exponent: f64, seed: u64, user_bytes: Option<u8>) -> Result<Self, LoadError> {
        let generator = Self::new(videos, exponent, seed)?;
        Ok(Self { user_bytes: user_bytes.unwrap_or(generator.user_bytes), ..generator })
    }

    /// Bytes of the largest view in plain columns.
    pub(crate) fn view_bytes_max(&self) -> usize {
        VIEW_BYTES_MAX + usize::from(self.user_bytes)
    }

    /// The ids of this generator's videos.
    #[must_use]
    pub fn ids(&self) -> GeneratedIds {
        GeneratedIds { count: self.videos }
    }

    pub(crate) fn videos(&self) -> u32 {
        self.videos
    }

    pub(crate) fn exponent(&self) -> f64 {
        self.exponent
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Draws for batch `number`: an endless sequence that depends on seed and number alone.
    #[must_use]
    pub fn batch(&self, number: u64) -> BatchDraws {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(number);
        BatchDraws { random, zipf: self.zipf, video_last: self.videos - 1, user_bytes: self.user_bytes }
    }
}

/// The draws of one batch.
#[derive(Debug)]
pub struct BatchDraws {
    random: ChaCha8Rng,
    zipf: Zipf<f64>,
    video_last: u32,
    user_bytes: u8,
}

/// One drawn view without its time.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// The video's index.
    pub video: VideoIndex,
    video_id: [u8; VIDEO_ID_BYTES],
    user_id: [u8; FIELD_BYTES_MAX],
    user_bytes: u8,
    region: &'static str,
    device: &'static str,
}

impl BatchDraws {
    /// The next draw.
    #[must_use]
    pub fn draw(&mut self) -> Draw {
        // Ranks are 1..=videos as a float; the cast saturates and the minimum guards rounding at the far end.
        let rank = self.zipf.sample(&mut self.random) as u32;
        self.draw_of(VideoIndex(rank.saturating_sub(1).min(self.video_last)))
    }

    /// The next draw of all but the video.
    #[must_use]
    pub fn draw_of(&mut self, video: VideoIndex) -> Draw {
        let bits = self.random.next_u64();
        let user = ((bits >> 32) * u64::from(USERS)) >> 32;
        Draw {
            video,
            video_id: video_id(video),
            user_id: repeated(&user_id(user as u32), self.user_bytes),
            user_bytes: self.user_bytes,
            region: REGIONS[(bits & 31) as usize],
            device: DEVICES[((bits >> 5) & 15) as usize],
        }
    }
}

impl Draw {
    /// The draw as a view at `timestamp_ms`.
    #[must_use]
    pub fn view(&self, timestamp_ms: u64) -> View<'_> {
        View {
            video_id: ascii(&self.video_id),
            timestamp_ms,
            user_id: ascii(&self.user_id[..self.user_bytes.into()]),
            region: self.region,
            device: self.device,
        }
    }
}

/// Generated bytes as text; they are ASCII by construction, and an empty string is never valid, so a slip would show.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_have_their_length_alphabet_and_are_distinct() {
        let mut seen = HashSet::new();
        for index in 0..200_000 {
            let id = video_id(VideoIndex(index));
            assert!(id.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_'));
            assert!(seen.insert(id), "index {index} repeats an id");
        }
        assert_eq!(user_id(7).len(), 12);
        assert_ne!(user_id(7), user_id(8));
    }

    #[test]
    fn a_batch_depends_on_seed_and_number_alone() {
        let list = |seed, number| -> Vec<(VideoIndex, [u8; FIELD_BYTES_MAX], &str, &str)> {
            let mut draws = ViewGenerator::new(1000, 1.0, seed).unwrap().batch(number);
            (0..500)
                .map(|_| {
                    let draw = draws.draw();
                    (draw.video, draw.user_id, draw.region, draw.device)
                })
                .collect()
        };
        assert_eq!(list(1, 5), list(1, 5));
        assert_ne!(list(1, 5), list(1, 6));
        assert_ne!(list(1, 5), list(2, 5));
    }

    #[test]
    fn popularity_follows_the_exponent() {
        let counts = |exponent: f64| {
            let mut draws = ViewGenerator::new(100, exponent, 3).unwrap().batch(0);
            let mut counts = [0_u32; 100];
            for _ in 0..200_000 {
                counts[draws.draw().video.0 as usize] += 1;
            }
            counts
        };
        let zipf = counts(1.0);
        // Rank 1 is ten times as likely as rank 10 under exponent 1; 200,000 draws leave a few per cent of noise.
        let ratio = f64::from(zipf[0]) / f64::from(zipf[9]);
        assert!((8.5..11.5).contains(&ratio), "seed 3: ratio {ratio}");
        let uniform = counts(0.0);
        assert!(uniform.iter().all(|count| (1700..2300).contains(count)), "seed 3: {uniform:?}");
    }

    #[test]
    fn the_largest_view_is_what_batch_checks_assume() {
        let longest_region = REGIONS.iter().map(|region| region.len()).max().unwrap();
        let longest_device = DEVICES.iter().map(|device| device.len()).max().unwrap();
        let longest = 8 + 4 + VIDEO_ID_BYTES + longest_region + longest_device;
        assert_eq!(ViewGenerator::new(1, 1.0, 1).unwrap().view_bytes_max(), longest + USER_ID_BYTES);
        let generator = ViewGenerator::with_user_bytes(1, 1.0, 1, Some(255)).unwrap();
        assert_eq!(generator.view_bytes_max(), longest + 255);
    }

    #[test]
    fn user_ids_are_as_long_as_asked() {
        let ids = |bytes| -> Vec<String> {
            let mut draws = ViewGenerator::with_user_bytes(10, 1.0, 1, bytes).unwrap().batch(0);
            (0..100).map(|_| draws.draw().view(0).user_id.to_owned()).collect()
        };
        let usual = ids(None);
        assert_eq!(ids(Some(12)), usual);
        for bytes in [0_u8, 1, 5, 13, 24, 70, 255] {
            for (id, usual) in ids(Some(bytes)).iter().zip(&usual) {
                assert_eq!(*id, usual.repeat(22)[..bytes.into()]);
            }
        }
    }

    #[test]
    fn nonsense_arguments_are_refused() {
        assert!(ViewGenerator::new(0, 1.0, 1).is_err());
        assert!(ViewGenerator::new(1, -1.0, 1).is_err());
        assert!(ViewGenerator::new(1, f64::NAN, 1).is_err());
        assert!(ViewGenerator::new(1, 1.0, 1).is_ok());
    }
}
