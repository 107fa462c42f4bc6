//! What a model saw of a picture: where its coordinates lie in the original one.

/// Maps between fractions of the picture that the model saw and pixels of the original one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PictureView {
    width: f64,
    height: f64,
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl PictureView {
    /// Maps a picture that the model saw as a whole, whatever its proportions.
    pub fn whole(width: u32, height: u32) -> Self {
        let (width, height) = (f64::from(width.max(1)), f64::from(height.max(1)));
        Self {
            width,
            height,
            left: 0.0,
            top: 0.0,
            right: width,
            bottom: height,
        }
    }

    /// Maps a picture of which the model saw the square in the middle.
    pub fn cropped(width: u32, height: u32) -> Self {
        let whole = Self::whole(width, height);
        let side = whole.width.min(whole.height);
        let (left, top) = ((whole.width - side) / 2.0, (whole.height - side) / 2.0);
        Self {
            left,
            top,
            right: left + side,
            bottom: top + side,
            ..whole
        }
    }

    /// Maps a picture of `width` x `height` pixels, of which the model saw a rectangle: its left, top, right
    /// and bottom edges in pixels of the original picture.
    pub fn of_visible((width, height): (u32, u32), [left, top, right, bottom]: [f64; 4]) -> Self {
        let whole = Self::whole(width, height);
        Self {
            left,
            top,
            right: right.max(left + 1e-9),
            bottom: bottom.max(top + 1e-9),
            ..whole
        }
    }

    /// Returns the width and height of what the model saw, in pixels of the original picture.
    pub fn size(&self) -> (f64, f64) {
        (self.right - self.left, self.bottom - self.top)
    }

    /// Turns fractions of what the model saw (x, y, x, y, ...) into pixels of the original picture.
    pub fn pixels(&self, seen: &[f64]) -> Vec<f64> {
        let (width, height) = self.size();
        alternately(seen, |x| self.left + x * width, |y| self.top + y * height)
    }

    /// Turns fractions of what the model saw into fractions of the original picture.
    pub fn fractions(&self, seen: &[f64]) -> Vec<f64> {
        alternately(&self.pixels(seen), |x| x / self.width, |y| y / self.height)
    }

    /// Turns pixels of the original picture into fractions of what the model saw; what lies outside of it is
    /// below 0 or above 1.
    pub fn seen(&self, pixels: &[f64]) -> Vec<f64> {
        let (width, height) = self.size();
        alternately(pixels, |x| (x - self.left) / width, |y| (y - self.top) / height)
    }
}

fn alternately(values: &[f64], even: impl Fn(f64) -> f64, odd: impl Fn(f64) -> f64) -> Vec<f64> {
    let map = |(index, value): (usize, &f64)| if index % 2 == 0 { even(*value) } else { odd(*value) };
    values.iter().enumerate().map(map).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cropped_picture_is_seen_in_its_middle() {
        let view = PictureView::cropped(300, 100);
        assert_eq!(view.pixels(&[0.0, 0.0, 1.0, 1.0]), [100.0, 0.0, 200.0, 100.0]);
        assert_eq!(view.seen(&[150.0, 50.0]), [0.5, 0.5]);
        assert_eq!(view.fractions(&[0.5, 1.0]), [0.5, 1.0]);
    }
}
