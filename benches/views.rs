//! Made-up views: ids as long as a YouTube id, popularity like Zipf's law with exponent 1.
//!
//! Not the load generator, which draws exactly; here the rank is n to the power of a uniform number, whose density
//! falls with 1/rank. Invariant: the same seed gives the same views.

use highwater_proto::View;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{SEED, Scale};

/// Event time of all views.
pub const TIME_MS: u64 = 1_721_044_800_000;

/// Draws video numbers from 0, small ones most often.
#[derive(Debug)]
pub struct Draw {
    random: ChaCha8Rng,
    videos: u32,
}

impl Draw {
    /// Draws from the videos of a scale.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(SEED), videos: scale.videos }
    }

    /// The next video.
    pub fn video(&mut self) -> u32 {
        let uniform: f64 = self.random.random();
        let rank = f64::from(self.videos).powf(uniform) as u32;
        rank.min(self.videos) - 1
    }
}

/// The id of a video: 11 bytes.
#[must_use]
pub fn video_id(video: u32) -> String {
    format!("v{video:010}")
}

/// The user of a view: 12 bytes.
#[must_use]
pub fn user_id(view: u32) -> String {
    format!("user-{view:07}")
}

/// A view with all fields filled.
#[must_use]
pub fn view<'a>(video_id: &'a str, user_id: &'a str) -> View<'a> {
    View { video_id, timestamp_ms: TIME_MS, user_id, region: "DE", device: "phone" }
}
