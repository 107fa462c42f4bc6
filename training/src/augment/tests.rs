use super::*;
use crate::random::fork;

const SIDE: usize = 96;

fn picture(pixel: impl Fn(usize, usize) -> [u8; 4]) -> Vec<u8> {
    (0..SIDE * SIDE)
        .flat_map(|index| pixel(index % SIDE, index / SIDE))
        .collect()
}

/// A red disc on nothing.
fn disc() -> Vec<u8> {
    picture(|x, y| {
        let inside = (x as f32 - 47.5).hypot(y as f32 - 47.5) < 40.0;
        if inside { [200, 30, 30, 255] } else { [0, 0, 0, 0] }
    })
}

#[test]
fn the_plain_picture_is_the_resized_one_on_white() {
    let half = picture(|x, _| if x < 48 { [255, 0, 0, 255] } else { [9, 9, 9, 0] });
    let plain = Augmentation::plain(64).apply(&half, &mut fork(1, &[])).unwrap();
    let [red, green, _] = [0, 1, 2].map(|plane| &plain.pixels[plane * 4096..(plane + 1) * 4096]);
    for y in 0..64 {
        for x in (1..64).filter(|x| !(30..34).contains(x)) {
            let on_border = y == 0 || y == 63 || x == 63;
            let tolerance = if on_border { 0.2 } else { 1e-5 };
            let expected = if x < 32 { [1.0, 0.0] } else { [1.0, 1.0] };
            assert!(
                (red[y * 64 + x] - expected[0]).abs() <= tolerance,
                "red at {x},{y}"
            );
            assert!(
                (green[y * 64 + x] - expected[1]).abs() <= tolerance,
                "green at {x},{y}: {}",
                green[y * 64 + x]
            );
        }
    }
}

#[test]
fn resizing_averages_fine_patterns() {
    let stripes = picture(|x, _| if x % 2 == 0 { [255; 4] } else { [0, 0, 0, 255] });
    let plain = Augmentation::plain(48)
        .apply(&stripes, &mut fork(1, &[]))
        .unwrap();
    let inside = (1..47).flat_map(|y| (1..47).map(move |x| y * 48 + x));
    for at in inside {
        assert!((plain.pixels[at] - 0.5).abs() < 0.01, "{}", plain.pixels[at]);
    }
}

#[test]
fn the_same_generator_gives_the_same_bits_and_others_give_others() {
    let augment = |seed| {
        Augmentation::training(64)
            .apply(&disc(), &mut fork(seed, &[]))
            .unwrap()
    };
    assert_eq!(augment(3), augment(3));
    assert_ne!(augment(3).pixels, augment(4).pixels);
}

#[test]
fn every_value_stays_between_zero_and_one() {
    for seed in 0..200 {
        let augmented = Augmentation::training(64)
            .apply(&disc(), &mut fork(seed, &[]))
            .unwrap();
        assert_eq!(augmented.pixels.len(), 3 * 64 * 64);
        assert!(
            augmented.pixels.iter().all(|value| (0.0..=1.0).contains(value)),
            "seed {seed}"
        );
    }
}

#[test]
fn source_cells_say_what_each_patch_shows() {
    // Every cell of the source has its own grey, so that a patch's centre names its cell.
    let cells = picture(|x, y| {
        let grey = u8::try_from((y / 12 * 8 + x / 12) * 3 + 20).unwrap();
        [grey, grey, grey, 255]
    });
    let augmentation = Augmentation {
        flip: 0.5,
        rotation: 30.0,
        place: 0.9,
        ..Augmentation::plain(64)
    };
    let augmentation = Augmentation {
        scale: (0.65, 1.1),
        ..augmentation
    };
    let (mut compared, mut empty) = (0, 0);
    for seed in 0..40 {
        let augmented = augmentation.apply(&cells, &mut fork(seed, &[])).unwrap();
        for (patch_x, patch_y) in (0..64).map(|patch| (patch % 8, patch / 8)) {
            let at =
                |dx: usize, dy: usize| augmented.pixels[(patch_y * 8 + 3 + dy) * 64 + patch_x * 8 + 3 + dx];
            let corners = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
            let is_one_cell = corners.iter().all(|value| (value - corners[0]).abs() < 1e-4);
            match augmented.placement.source_cell(patch_x, patch_y, 8, 8) {
                Some((x, y)) if is_one_cell => {
                    let grey = ((y * 8 + x) * 3 + 20) as f32 / 255.0;
                    assert!(
                        (corners[0] - grey).abs() < 1e-3,
                        "seed {seed}, patch {patch_x},{patch_y}"
                    );
                    compared += 1;
                }
                None if is_one_cell => {
                    assert!(corners[0] > 0.999, "seed {seed}: outside of the source is white");
                    empty += 1;
                }
                _ => {}
            }
        }
    }
    assert!(compared > 1000 && empty > 100, "{compared} {empty}");
}

#[test]
fn placing_an_unturned_picture_maps_the_grid_to_itself() {
    for cell in 0..8 {
        assert_eq!(Placement::IDENTITY.source_cell(cell, 3, 8, 8), Some((cell, 3)));
        assert_eq!(
            Placement::IDENTITY.mirrored().source_cell(cell, 3, 8, 8),
            Some((7 - cell, 3))
        );
    }
    assert_eq!(Placement::IDENTITY.source_cell(0, 0, 8, 0), None);
}

#[test]
fn outlines_darken_the_border_of_the_shape() {
    let augmentation = Augmentation {
        outline: 1.0,
        ..Augmentation::plain(64)
    };
    let outlined = augmentation.apply(&disc(), &mut fork(1, &[])).unwrap();
    let plain = Augmentation::plain(64).apply(&disc(), &mut fork(1, &[])).unwrap();
    let green = |image: &Augmented, x: usize| image.pixels[4096 + 32 * 64 + x];
    let darkest = (0..16).map(|x| green(&outlined, x)).fold(1.0, f32::min);
    assert!(darkest < 0.06, "{darkest}");
    assert!(
        (green(&outlined, 0) - 1.0).abs() < 1e-3,
        "the background stays white"
    );
    assert!((green(&plain, 32) - 30.0 / 255.0).abs() < 1e-3);
}

#[test]
fn bytes_that_are_no_square_are_refused() {
    for bytes in [0, 3, 8, 96 * 95 * 4, 96 * 96 * 4 + 1] {
        let error = Augmentation::training(64)
            .apply(&vec![0; bytes], &mut fork(1, &[]))
            .unwrap_err();
        assert!(error.to_string().contains(&format!("found {bytes} bytes")));
    }
}

#[test]
fn tiny_sizes_work() {
    for size in [0, 1, 2, 3] {
        let everything = Augmentation {
            blur: 1.0,
            cutout: 1.0,
            outline: 1.0,
            ..Augmentation::training(size)
        };
        for seed in 0..20 {
            let augmented = everything.apply(&[255; 4], &mut fork(seed, &[])).unwrap();
            assert_eq!(augmented.pixels.len(), 3 * size * size);
        }
    }
}
