//! Which packed rows belong to which sample.

use std::ops::Range;

use crate::config::AttentionPattern;
use crate::kernels::plan::AttentionPlan;

/// Says which packed rows belong to which sample.
///
/// Rows are expert-major: all vision rows of all samples, then all text rows, N in all. A picture's rows are
/// its class row and then its patches. Samples about the same pictures may name the same rows, and behind the
/// N rows stand those that an [`ImagePrefix`](crate::ImagePrefix) knows already: the encoder attends to them
/// and does not compute them again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// The rows of each sample, in the order of the batch.
    pub samples: Vec<SampleSegments>,
    /// How many of the packed rows are vision rows.
    pub vision_rows: usize,
    /// How many of the packed rows are text rows.
    pub text_rows: usize,
    /// How many rows of image prefixes stand behind the packed rows, R.
    pub prefix_rows: usize,
}

/// The packed rows of one sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampleSegments {
    /// One range per picture.
    pub images: Vec<Range<usize>>,
    /// The text's rows; empty where there is no text.
    pub text: Range<usize>,
}

impl SampleSegments {
    /// Lists the sample's ranges: pictures, then text.
    #[must_use]
    pub fn all(&self) -> Vec<Range<usize>> {
        let mut ranges = self.images.clone();
        if !self.text.is_empty() {
            ranges.push(self.text.clone());
        }
        ranges
    }

    /// Counts the sample's rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.all().iter().map(ExactSizeIterator::len).sum()
    }

    /// Returns the rows of all its pictures, which lie together; none where it has no pictures.
    pub(crate) fn image_rows(&self) -> Option<Range<usize>> {
        Some(self.images.first()?.start..self.images.last()?.end)
    }
}

impl Segments {
    /// Counts the packed rows that the encoder computes, N, without those of image prefixes.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.vision_rows + self.text_rows
    }

    /// Plans which rows attend to which under a pattern; each packed row is one query, however many samples
    /// share it.
    pub(crate) fn plan(&self, pattern: AttentionPattern) -> AttentionPlan {
        let mut plan = AttentionPlan::default();
        let mut asked = 0;
        for sample in &self.samples {
            let (images, text) = (sample.images.clone(), vec![sample.text.clone()]);
            if pattern == AttentionPattern::Joint {
                plan.push(sample.all(), sample.all(), false);
                continue;
            }
            // Pictures stand in the order of the samples: those of an earlier sample before `asked`, known
            // ones behind.
            if images
                .first()
                .is_some_and(|image| (asked..self.vision_rows).contains(&image.start))
            {
                asked = images.last().map_or(asked, |image| image.end);
                plan.push(images.clone(), images, false);
            }
            plan.push(text, sample.all(), pattern == AttentionPattern::Causal);
        }
        plan
    }
}
