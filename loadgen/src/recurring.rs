//! Batches that are made ahead and sent over and over under fresh sequences and times, so that a core is not busy
//! making views while it should send them.
//!
//! Popularity is not drawn but dealt: among all views made ahead a video has its share by the Zipf law, rounded up or
//! down, in random order. So far fewer views hold most videos than draws would need. Invariant: the same options give
//! the same batches.

use std::sync::Arc;

use highwater_proto::{BATCH_BYTES_MAX, BatchBuilder, PreparedBatch, Pushed, Welcome};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::LoadError;
use crate::oracle::VideoIndex;
use crate::send::Encoding;
use crate::zipf::ViewGenerator;

/// Most views that can be made ahead: about 25 GB of them with plain columns.
pub const PREPARED_MAX: u64 = 500_000_000;

/// All batches made ahead.
#[derive(Debug)]
pub struct Recurring {
    batches: Vec<PreparedBatch>,
    videos: Vec<VideoIndex>,
    batch_views: usize,
    encodings: u32,
}

impl Recurring {
    /// Makes at least `views` views in whole batches, in the smallest of these encodings (bits as in a welcome).
    ///
    /// # Errors
    /// [`LoadError::Option`] if a batch's views do not fit the protocol's largest batch.
    pub fn make(
        generator: &ViewGenerator,
        views: u64,
        batch_views: u32,
        encodings: u32,
    ) -> Result<Arc<Self>, LoadError> {
        let views = views.max(1).next_multiple_of(u64::from(batch_views));
        let videos = generator.deal(views);
        let mut builder = BatchBuilder::new(batch_views, BATCH_BYTES_MAX as u32).with_encodings(encodings);
        let mut batches = Vec::with_capacity(videos.len() / batch_views as usize);
        for (number, videos) in (0..).zip(videos.chunks(batch_views as usize)) {
            let mut draws = generator.batch(number);
            for &video in videos {
                let pushed =
                    builder.push(&draws.draw_of(video).view(0)).map_err(highwater_client::ClientError::from)?;
                if pushed == Pushed::Full {
                    let (views, fitting) = (u64::from(batch_views), u64::from(builder.len()));
                    return Err(crate::run::too_large(views, fitting, generator.view_bytes_max()));
                }
            }
            batches.push(builder.prepare());
        }
        Ok(Arc::new(Self { batches, videos, batch_views: batch_views as usize, encodings }))
    }

    /// Refuses an engine that does not take every encoding that the batches may be in.
    pub(crate) fn check_encodings(&self, welcome: &Welcome) -> Result<(), LoadError> {
        if self.encodings & !welcome.encodings == 0 {
            return Ok(());
        }
        Err(LoadError::Option {
            option: "encoding",
            value: Encoding::Compact.to_string(),
            reason: "this engine does not take compact columns, in which batches are made ahead; use --encoding=plain"
                .into(),
        })
    }

    /// How many batches there are; at least one.
    #[must_use]
    pub fn batch_count(&self) -> u32 {
        self.batches.len() as u32
    }

    /// The batch of that number.
    #[must_use]
    pub fn batch(&self, number: u32) -> &PreparedBatch {
        &self.batches[number as usize]
    }

    /// The videos of its views, in order.
    #[must_use]
    pub fn videos(&self, number: u32) -> &[VideoIndex] {
        let first = number as usize * self.batch_views;
        &self.videos[first..first + self.batch_views]
    }
}

impl ViewGenerator {
    /// Videos of `views` views, each as often as its popularity says, rounded up or down, in random order.
    fn deal(&self, views: u64) -> Vec<VideoIndex> {
        let weight = |rank: u32| f64::from(rank).powf(-self.exponent());
        let total: f64 = (1..=self.videos()).map(weight).sum();
        let mut random = ChaCha8Rng::seed_from_u64(self.seed());
        // A view goes to the video in whose stretch of the sum its place falls; places are 1 apart.
        let mut place = random.random::<f64>();
        let mut sum = 0.0;
        let mut dealt = Vec::with_capacity(views as usize);
        for rank in 1..=self.videos() {
            sum += weight(rank) / total * views as f64;
            while place < sum && (dealt.len() as u64) < views {
                dealt.push(VideoIndex(rank - 1));
                place += 1.0;
            }
        }
        // The sum of many roundings may end short of the last place.
        dealt.resize(views as usize, VideoIndex(self.videos() - 1));
        dealt.shuffle(&mut random);
        dealt
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use highwater_proto::{Batch, ENCODING_PLAIN_BIT, ENCODINGS, FRAME_HEADER_BYTES, ProducerId, Sequence};

    use super::*;
    use crate::zipf::video_id;

    #[test]
    fn each_video_has_its_share_rounded_up_or_down() {
        for (exponent, views) in [(0.0, 5000), (1.0, 20_000), (1.4, 999)] {
            let dealt = ViewGenerator::new(1000, exponent, 7).unwrap().deal(views);
            assert_eq!(dealt.len() as u64, views);
            let mut counts: HashMap<u32, u64> = HashMap::new();
            dealt.iter().for_each(|video| *counts.entry(video.0).or_default() += 1);
            let total: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for rank in 1..=1000_u32 {
                let share = f64::from(rank).powf(-exponent) / total * views as f64;
                let count = counts.get(&(rank - 1)).copied().unwrap_or(0) as f64;
                assert!((share.floor()..=share.ceil()).contains(&count), "{exponent}: rank {rank}, {count} of {share}");
            }
        }
    }

    #[test]
    fn batches_hold_the_videos_that_are_told_of_them_and_are_the_same_each_time() {
        let make =
            |encodings| Recurring::make(&ViewGenerator::new(500, 1.0, 3).unwrap(), 2500, 1000, encodings).unwrap();
        let (recurring, again, plain) = (make(ENCODINGS), make(ENCODINGS), make(ENCODING_PLAIN_BIT));
        assert_eq!(recurring.batch_count(), 3);
        for number in 0..3 {
            let frame = recurring.batch(number).encode(ProducerId(5), Sequence(9), 77);
            let payload = &frame[FRAME_HEADER_BYTES..];
            Batch::verify(payload, highwater_proto::PROTOCOL_VERSION, ProducerId(5)).unwrap();
            let batch = Batch::decode(payload).unwrap();
            assert_eq!((batch.view_count(), batch.sequence()), (1000, Sequence(9)));
            assert!(batch.timestamps().all(|time| time == 77));
            for (view, video) in batch.views().zip(recurring.videos(number)) {
                assert_eq!(view.video_id.as_bytes(), video_id(*video));
                assert!(view.user_id.len() >= 12 && !view.region.is_empty() && !view.device.is_empty());
            }
            assert_eq!(frame, again.batch(number).encode(ProducerId(5), Sequence(9), 77));
            let plain = plain.batch(number).encode(ProducerId(5), Sequence(9), 77);
            assert!(frame.len() < plain.len() - 10_000, "{} and {} bytes", frame.len(), plain.len());
            assert!(Batch::decode(&plain[FRAME_HEADER_BYTES..]).unwrap().views().eq(batch.views()));
        }
        assert_ne!(recurring.videos(0), recurring.videos(1));
    }

    #[test]
    fn views_have_as_many_bytes_as_the_help_says() {
        let bytes_per_view = |encodings, user_bytes| {
            let generator = ViewGenerator::with_user_bytes(100_000, 1.0, 1, user_bytes).unwrap();
            let recurring = Recurring::make(&generator, 40_960, 4096, encodings).unwrap();
            let batches = (0..recurring.batch_count()).map(|number| recurring.batch(number));
            batches.map(|batch| batch.payload_bytes() as f64).sum::<f64>() / 40_960.0
        };
        let plain = bytes_per_view(ENCODING_PLAIN_BIT, None);
        assert!((42.2..42.5).contains(&plain), "{plain}");
        let longer = bytes_per_view(ENCODING_PLAIN_BIT, Some(70));
        assert!((100.2..100.5).contains(&longer), "{longer}");
        let compact = bytes_per_view(ENCODINGS, None);
        assert!((22.0..30.0).contains(&compact), "{compact}");
    }
}
