//! Boxes in pictures, and how far two of them overlap.

/// The overlap from which a box counts as found.
///
/// Source: Everingham et al. 2010, The PASCAL Visual Object Classes Challenge, section 4.2.
pub const BOX_THRESHOLD: f64 = 0.5;

/// Holds a box by its edges, in pixels or in fractions of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoundingBox {
    /// The left edge.
    pub left: f64,
    /// The top edge.
    pub top: f64,
    /// The right edge.
    pub right: f64,
    /// The bottom edge.
    pub bottom: f64,
}

impl BoundingBox {
    /// Makes a box of its left, top, right and bottom edge.
    pub fn new([left, top, right, bottom]: [f64; 4]) -> Self {
        Self {
            left,
            top,
            right,
            bottom,
        }
    }

    /// Returns the area; 0 of a box whose edges are in the wrong order.
    pub fn area(&self) -> f64 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    /// Returns the area that two boxes share.
    pub fn intersection(&self, other: &Self) -> f64 {
        let shared = Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        };
        shared.area()
    }

    /// Returns the intersection over the union, IoU, from 0 to 1; 0 where both boxes are empty.
    ///
    /// # Units
    ///
    /// Both boxes in pixels, or both in fractions of the same picture: the IoU is the same.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiway_tasks::metrics::BoundingBox;
    ///
    /// let left = BoundingBox::new([0.0, 0.0, 2.0, 1.0]);
    /// let right = BoundingBox::new([1.0, 0.0, 3.0, 1.0]);
    /// assert!((left.iou(&right) - 1.0 / 3.0).abs() < 1e-12);
    /// ```
    pub fn iou(&self, other: &Self) -> f64 {
        let shared = self.intersection(other);
        over(shared, self.area() + other.area() - shared)
    }

    /// Returns the share of this box that lies in a region of a crowd.
    ///
    /// Source: `pycocotools` 2.0, `maskUtils.iou` with `iscrowd`.
    pub(super) fn share_in(&self, crowd: &Self) -> f64 {
        over(self.intersection(crowd), self.area())
    }
}

/// Divides areas; 0 of an empty whole, and of areas that are no finite numbers.
fn over(part: f64, whole: f64) -> f64 {
    let share = part / whole;
    if share.is_finite() { share } else { 0.0 }
}

/// Returns whether the first box of an answer overlaps an expected one by an IoU of at least
/// [`BOX_THRESHOLD`]: accuracy at IoU 0.5. Where nothing is expected, an answer without boxes is right.
///
/// Source: Kazemzadeh et al. 2014, ReferItGame (<https://aclanthology.org/D14-1086>), for one expected box.
///
/// # Examples
///
/// ```
/// use multiway_tasks::metrics::{BoundingBox, box_match};
///
/// let expected = [BoundingBox::new([0.0, 0.0, 10.0, 10.0])];
/// assert!(box_match(&[BoundingBox::new([0.0, 0.0, 10.0, 6.0])], &expected));
/// assert!(!box_match(&[BoundingBox::new([0.0, 0.0, 10.0, 4.0])], &expected));
/// assert!(!box_match(&[], &expected) && box_match(&[], &[]));
/// ```
pub fn box_match(found: &[BoundingBox], expected: &[BoundingBox]) -> bool {
    match found.first() {
        Some(first) => expected
            .iter()
            .any(|expected| first.iou(expected) >= BOX_THRESHOLD),
        None => expected.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_that_are_empty_or_inside_out_overlap_nothing() {
        let whole = BoundingBox::new([0.0, 0.0, 4.0, 4.0]);
        let line = BoundingBox::new([1.0, 1.0, 1.0, 3.0]);
        let inside_out = BoundingBox::new([3.0, 3.0, 1.0, 1.0]);
        for odd in [line, inside_out, BoundingBox::new([f64::NAN; 4])] {
            assert!(whole.iou(&odd).abs() < f64::EPSILON && odd.iou(&odd).abs() < f64::EPSILON);
        }
        assert!((whole.iou(&whole) - 1.0).abs() < f64::EPSILON);
    }
}
