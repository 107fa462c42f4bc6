//! Plain shapes in plain colours.

use resvg::tiny_skia::{Color, FillRule, Paint, PathBuilder, Pixmap, Transform};

use crate::data::straight;

/// A shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A circle.
    Circle,
    /// A square.
    Square,
    /// A triangle.
    Triangle,
    /// A star of five points.
    Star,
    /// A cross.
    Cross,
    /// A square on its corner.
    Diamond,
}

/// A colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Red.
    Red,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Yellow.
    Yellow,
    /// Black.
    Black,
    /// Orange.
    Orange,
    /// Purple.
    Purple,
    /// Brown.
    Brown,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 6] = [
        Self::Circle,
        Self::Square,
        Self::Triangle,
        Self::Star,
        Self::Cross,
        Self::Diamond,
    ];

    /// Names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Star => "star",
            Self::Cross => "cross",
            Self::Diamond => "diamond",
        }
    }

    /// Its corners in the square from -1 to 1; none of a circle.
    fn corners(self) -> Vec<(f32, f32)> {
        match self {
            Self::Circle => Vec::new(),
            Self::Square => vec![(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            Self::Triangle => vec![(0.0, -0.95), (0.95, 0.85), (-0.95, 0.85)],
            Self::Star => (0..10)
                .map(|corner: u8| {
                    let radius = if corner.is_multiple_of(2) { 1.0 } else { 0.42 };
                    let angle = f32::from(corner) * std::f32::consts::PI / 5.0;
                    (radius * angle.sin(), -radius * angle.cos())
                })
                .collect(),
            Self::Cross => {
                let (far, near) = (0.95, 0.3);
                vec![
                    (-near, -far),
                    (near, -far),
                    (near, -near),
                    (far, -near),
                    (far, near),
                    (near, near),
                    (near, far),
                    (-near, far),
                    (-near, near),
                    (-far, near),
                    (-far, -near),
                    (-near, -near),
                ]
            }
            Self::Diamond => vec![(0.0, -0.98), (0.75, 0.0), (0.0, 0.98), (-0.75, 0.0)],
        }
    }

    /// Draws it on a transparent square: RGBA, straight alpha, row-major.
    #[must_use]
    pub fn draw(self, [red, green, blue]: [u8; 3], side: usize) -> Vec<u8> {
        let canvas = u32::try_from(side).ok().and_then(|side| Pixmap::new(side, side));
        let Some(mut canvas) = canvas else {
            return Vec::new();
        };
        let half = side as f32 / 2.0;
        let path = if self == Self::Circle {
            PathBuilder::from_circle(half, half, half * 0.95)
        } else {
            let mut path = PathBuilder::new();
            for (at, (x, y)) in self.corners().into_iter().enumerate() {
                let (x, y) = (half + half * x, half + half * y);
                if at == 0 {
                    path.move_to(x, y);
                } else {
                    path.line_to(x, y);
                }
            }
            path.close();
            path.finish()
        };
        let mut paint = Paint::default();
        paint.set_color(Color::from_rgba8(red, green, blue, u8::MAX));
        paint.anti_alias = true;
        if let Some(path) = path {
            canvas.fill_path(&path, &paint, FillRule::Winding, Transform::identity(), None);
        }
        straight(&canvas)
    }
}

impl Colour {
    /// All colours.
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Black,
        Self::Orange,
        Self::Purple,
        Self::Brown,
    ];

    /// Names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Black => "black",
            Self::Orange => "orange",
            Self::Purple => "purple",
            Self::Brown => "brown",
        }
    }

    /// Red, green and blue of a typical one.
    #[must_use]
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [215, 30, 35],
            Self::Green => [40, 160, 60],
            Self::Blue => [40, 80, 210],
            Self::Yellow => [245, 215, 40],
            Self::Black => [20, 20, 22],
            Self::Orange => [245, 135, 25],
            Self::Purple => [130, 50, 165],
            Self::Brown => [120, 72, 35],
        }
    }
}
