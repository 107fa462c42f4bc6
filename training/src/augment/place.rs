//! Where a picture stands in the result, and drawing it there without aliasing.

use super::pixel::Pixel;

/// Samples along each side of a pixel.
const SAMPLES: usize = 2;
/// The centres of those samples, from the pixel's centre.
const OFFSETS: [f32; SAMPLES] = [-0.25, 0.25];

/// An affine map from the result to the source; both are the square from -0.5 to 0.5.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// `source = matrix * result + offset`, row by row.
    matrix: [[f32; 2]; 2],
    offset: [f32; 2],
}

impl Placement {
    /// The source fills the result.
    pub const IDENTITY: Self = Self {
        matrix: [[1.0, 0.0], [0.0, 1.0]],
        offset: [0.0, 0.0],
    };

    /// Places a source: sheared and scaled, then turned by `turn` radians, then moved by `shift`.
    ///
    /// # Units
    ///
    /// `scale` and `shift` are in sides of the result.
    #[must_use]
    pub fn new(scale: [f32; 2], turn: f32, shear: f32, shift: [f32; 2]) -> Self {
        let (sin, cos) = turn.sin_cos();
        let [width, height] = scale.map(|scale| scale.max(1e-3));
        // The inverse of turn * scale * shear, where shear adds `shear * y` to x.
        let unturn = [[cos / width, sin / width], [-sin / height, cos / height]];
        let [across, down] = unturn;
        let matrix = [[across[0] - shear * down[0], across[1] - shear * down[1]], down];
        let offset = matrix.map(|row| -(row[0] * shift[0] + row[1] * shift[1]));
        Self { matrix, offset }
    }

    /// Mirrors the source left to right before it is placed.
    #[must_use]
    pub fn mirrored(self) -> Self {
        let [across, down] = self.matrix;
        Self {
            matrix: [across.map(|value| -value), down],
            offset: [-self.offset[0], self.offset[1]],
        }
    }

    /// Maps a point of the result to the source, both from 0 to 1.
    #[must_use]
    pub fn source_point(&self, x: f32, y: f32) -> (f32, f32) {
        let (x, y) = (x - 0.5, y - 0.5);
        let [across, down] = self.matrix;
        (
            across[0] * x + across[1] * y + self.offset[0] + 0.5,
            down[0] * x + down[1] * y + self.offset[1] + 0.5,
        )
    }

    /// Finds the cell of the source, divided into `cells` x `cells`, at the centre of a patch of the result,
    /// divided into `grid` x `grid`.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the count of cells, checked"
    )]
    pub fn source_cell(
        &self,
        patch_x: usize,
        patch_y: usize,
        cells: usize,
        grid: usize,
    ) -> Option<(usize, usize)> {
        let centre = |patch: usize| (patch as f32 + 0.5) / grid as f32;
        let (x, y) = self.source_point(centre(patch_x), centre(patch_y));
        let inside = 0.0..1.0;
        let cell = |at: f32| ((at * cells as f32) as usize).min(cells.saturating_sub(1));
        (grid > 0 && cells > 0 && inside.contains(&x) && inside.contains(&y)).then(|| (cell(x), cell(y)))
    }
}

/// Draws RGBA bytes of straight alpha where the placement says; nothing, which is transparent, around them.
///
/// Every pixel of the result averages bilinear samples, which is antialiased down to a quarter of the
/// source's size.
pub(super) fn draw(rgba: &[u8], side: usize, placement: &Placement, size: usize) -> Vec<Pixel> {
    let source = Bordered::new(rgba, side);
    let step = 1.0 / size as f32;
    let mut image = Vec::with_capacity(size * size);
    for y in 0..size {
        for x in 0..size {
            let mut sum = [0.0; 4];
            for offset_y in OFFSETS {
                for offset_x in OFFSETS {
                    let at_x = (x as f32 + 0.5 + offset_x) * step;
                    let at_y = (y as f32 + 0.5 + offset_y) * step;
                    source.add_sample(placement.source_point(at_x, at_y), &mut sum);
                }
            }
            image.push(sum.map(|value| value * (1.0 / (SAMPLES * SAMPLES) as f32)));
        }
    }
    image
}

/// A source with a transparent pixel around it, so that sampling needs no special case at its sides.
struct Bordered {
    pixels: Vec<Pixel>,
    side: usize,
    stride: usize,
}

impl Bordered {
    fn new(rgba: &[u8], side: usize) -> Self {
        let stride = side + 2;
        let mut pixels = vec![[0.0; 4]; stride * stride];
        let rows = pixels.chunks_exact_mut(stride).skip(1);
        for (row, bytes) in rows.zip(rgba.chunks_exact(side * 4)) {
            let (sources, _) = bytes.as_chunks::<4>();
            for (pixel, &[red, green, blue, alpha]) in row.iter_mut().skip(1).zip(sources) {
                let alpha = f32::from(alpha) * (1.0 / 255.0);
                let scale = alpha * (1.0 / 255.0);
                *pixel = [
                    f32::from(red) * scale,
                    f32::from(green) * scale,
                    f32::from(blue) * scale,
                    alpha,
                ];
            }
        }
        Self { pixels, side, stride }
    }

    /// Adds the bilinear sample at a point from 0 to 1; nothing where it lies outside.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and side + 1, checked"
    )]
    fn add_sample(&self, (x, y): (f32, f32), sum: &mut Pixel) {
        let side = self.side as f32;
        // Pixel centres of the bordered source stand at whole numbers.
        let (x, y) = (x * side + 0.5, y * side + 0.5);
        let inside = 0.0..side + 1.0;
        if !(inside.contains(&x) && inside.contains(&y)) {
            return;
        }
        let (column, row) = (x as usize, y as usize);
        let (right, below) = (x - column as f32, y - row as f32);
        let at = row * self.stride + column;
        let (Some([a, b]), Some([c, d])) = (self.pair(at), self.pair(at + self.stride)) else {
            return;
        };
        let weights = [
            (1.0 - right) * (1.0 - below),
            right * (1.0 - below),
            (1.0 - right) * below,
            right * below,
        ];
        for channel in 0..4 {
            sum[channel] += weights[0] * a[channel]
                + weights[1] * b[channel]
                + weights[2] * c[channel]
                + weights[3] * d[channel];
        }
    }

    fn pair(&self, at: usize) -> Option<&[Pixel; 2]> {
        self.pixels.get(at..)?.first_chunk()
    }
}
