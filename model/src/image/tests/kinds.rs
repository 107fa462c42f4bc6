//! Rare kinds of the formats that are read, to the pixel as Pillow reads them, and what is said of those that
//! are not.

use insta::assert_snapshot;

use super::*;

fn kinds() -> PathBuf {
    fixtures().join("kinds")
}

fn kind(name: &str) -> Vec<u8> {
    fs::read(kinds().join(name)).unwrap()
}

fn pixels(file: &[u8]) -> image::RgbImage {
    decode::decode(file, &ImageLimits::default()).unwrap()
}

#[test]
fn rare_kinds_have_the_pixels_that_pillow_gives_them() {
    let (mut cases, mut different) = (0, Vec::new());
    for entry in fs::read_dir(kinds()).unwrap().map(Result::unwrap) {
        let expected = entry.file_name().into_string().unwrap(); // NAME.EXT.png
        let Some(name) = expected.strip_suffix(".png").filter(|name| name.contains('.')) else {
            continue;
        };
        let expected = image::open(entry.path()).unwrap().into_rgb8();
        match decode::decode(&kind(name), &ImageLimits::default()) {
            Ok(found) if found == expected => {}
            Ok(_) => different.push(format!("{name}: other pixels")),
            Err(error) => different.push(format!("{name}: {error}")),
        }
        cases += 1;
    }
    different.sort();
    assert!(different.is_empty(), "{different:#?}");
    assert!(cases > 40, "the fixtures are there");
}

#[test]
fn a_rare_kind_that_is_cut_is_an_error_or_the_whole_picture() {
    for name in [
        "cmyk.jpg",
        "ycck-progressive.jpg",
        "scans-luma-last.jpg",
        "arithmetic.jpg",
        "announces-exif.webp",
        "colours.dib",
    ] {
        let file = kind(name);
        let whole = pixels(&file);
        for cut in cuts(file.len()) {
            if let Ok(picture) = decode::decode(&file[..cut], &ImageLimits::default()) {
                assert!(picture == whole, "{name} cut at {cut} of {}", file.len());
            }
        }
        assert!(
            decode::decode(&file[..file.len() * 9 / 10], &ImageLimits::default()).is_err(),
            "{name}"
        );
    }
}

/// Ends a JPEG behind its first scan.
fn with_one_scan(file: &[u8]) -> Vec<u8> {
    let scans = |at: &usize| file[*at..].starts_with(b"\xff\xda");
    let second = (0..file.len()).filter(scans).nth(1).unwrap();
    let mut cut = file[..second].to_vec();
    cut.extend(b"\xff\xd9");
    cut
}

#[test]
fn a_jpeg_that_ends_before_all_planes_are_there_is_truncated() {
    let message = "the JPEG picture is truncated: the file ends before the picture does";
    assert_eq!(refusal(&with_one_scan(&kind("scans-luma-first.jpg"))), message);
    assert_eq!(refusal(&with_one_scan(&kind("scans-of-inks.jpg"))), message);
}

/// Changes a JPEG's frame header: its marker, and the byte at `at` behind the marker.
fn with_frame(name: &str, marker: u8, at: usize, byte: u8) -> Vec<u8> {
    let mut file = kind(name);
    let frame = file
        .windows(3)
        .position(|start| matches!(start, [0xff, 0xc0 | 0xc2, 0]))
        .unwrap();
    file[frame + 1] = marker;
    file[frame + 1 + at] = byte;
    file
}

#[test]
fn kinds_of_jpeg_that_are_not_read_are_named() {
    const LENGTH: usize = 2; // the low byte of the header's length, which stays as it is
    let told = |marker| refusal(&with_frame("rgb-adobe.jpg", marker, LENGTH, 17));
    assert_snapshot!(refusal(&kind("lossless-sof3.jpg")), @"the JPEG picture is of a kind that is not read: lossless JPEG (SOF3); convert it to a plain PNG first");
    assert_snapshot!(told(0xc3), @"the JPEG picture is of a kind that is not read: lossless JPEG (SOF3); convert it to a plain PNG first");
    assert_snapshot!(told(0xcb), @"the JPEG picture is of a kind that is not read: lossless JPEG with arithmetic coding (SOF11); convert it to a plain PNG first");
    assert_snapshot!(told(0xc5), @"the JPEG picture is of a kind that is not read: hierarchical JPEG; convert it to a plain PNG first");
    assert_snapshot!(told(0xde), @"the JPEG picture is of a kind that is not read: hierarchical JPEG; convert it to a plain PNG first");
    assert_snapshot!(told(0xf7), @"the JPEG picture is of a kind that is not read: JPEG-LS (SOF55); convert it to a plain PNG first");
    assert_snapshot!(refusal(&with_frame("rgb-adobe.jpg", 0xc1, 3, 12)), @"the JPEG picture is of a kind that is not read: JPEG of 12 bits a sample, in place of 8; convert it to a plain PNG first");
    assert_snapshot!(refusal(&with_frame("rgb-adobe.jpg", 0xc0, 8, 2)), @"the JPEG picture is of a kind that is not read: JPEG of 2 colour planes, in place of 1, 3 or 4; convert it to a plain PNG first");
    assert_snapshot!(refusal(b"\xff\xd8\xff\xd9"), @"the JPEG file holds no pixels: behind its header is no frame, or an empty one");
    let scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0".repeat(101);
    let many = [&kind("arithmetic-grey.jpg")[..], &scan].concat();
    let end = many.windows(2).position(|marker| marker == [0xff, 0xd9]).unwrap();
    let many = [&many[..end], &many[end + 2..], b"\xff\xd9"].concat();
    assert_snapshot!(refusal(&many), @"the JPEG picture is of a kind that is not read: JPEG of 102 scans, more than 100; convert it to a plain PNG first");
}

#[test]
fn damage_that_libjpeg_finds_is_told_in_its_words() {
    let mut file = kind("cmyk.jpg");
    let table = file.windows(2).position(|marker| marker == [0xff, 0xc4]).unwrap();
    file[table + 5..table + 21].fill(255); // more codes than there can be
    assert_snapshot!(refusal(&file), @"the JPEG picture is damaged: Bogus Huffman table definition");
}

#[test]
fn a_png_of_apples_is_named_and_its_size_is_not_misread() {
    assert_snapshot!(refusal(&kind("apple-cgbi.png")), @"the PNG picture is of a kind that is not read: Apple's own variant for iOS, with a chunk CgBI (`pngcrush -revert-iphone-optimizations in.png out.png` reverts it); convert it to a plain PNG first");
}

/// A GIF of 8 x 8 pixels and two colours, up to its first frame.
const GIF: &[u8] = b"GIF89a\x08\0\x08\0\x80\0\0\xff\0\0\0\xff\0";

#[test]
fn files_without_frames_are_told_from_cut_ones() {
    assert_snapshot!(refusal(&[GIF, b";"].concat()), @"the GIF file holds no pixels: behind its header is no frame, or an empty one");
    assert_snapshot!(refusal(&[GIF, b"!\xfe\x05hello\0;"].concat()), @"the GIF file holds no pixels: behind its header is no frame, or an empty one");
    assert_snapshot!(refusal(&[GIF, b"!\xf9\x04\0\0\0\0\0;"].concat()), @"the GIF file holds no pixels: behind its header is no frame, or an empty one");
    assert_snapshot!(refusal(&[GIF, b",\0\0\0\0\0\0\0\0\0\x02\0;"].concat()), @"the GIF file holds no pixels: behind its header is no frame, or an empty one");
    assert_snapshot!(refusal(&[GIF, b",\0\0\0\0\x08\0\x08\0\0\x02\0;"].concat()), @"the GIF file holds no pixels: behind its header is no frame, or an empty one");
    assert_snapshot!(refusal(GIF), @"the GIF picture is truncated: the file ends before the picture does");
    assert_snapshot!(refusal(b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x0f\0\0\x0f\0\0"), @"the WebP file holds no pixels: behind its header is no frame, or an empty one");
}

/// The beginning of a file in boxes.
fn boxed(major: &str, compatible: &str) -> Vec<u8> {
    let size = 16 + u8::try_from(compatible.len()).unwrap();
    let brands = [major.as_bytes(), b"\0\0\0\0", compatible.as_bytes()].concat();
    [&[0, 0, 0, size], &b"ftyp"[..], &brands, b"\0\0\0\x08mdat"].concat()
}

#[test]
fn files_in_boxes_are_told_by_their_brands() {
    let told = |major, compatible| {
        let message = refusal(&boxed(major, compatible));
        message.split(" is not").next().unwrap().to_owned()
    };
    for (major, compatible) in [
        ("avif", "mif1miaf"),
        ("avis", "msf1"),
        ("mif1", "miafavif"),
        ("msf1", "avisheic"),
        ("miaf", "MA1Bavif"),
    ] {
        assert_eq!(told(major, compatible), "an AVIF file", "{major} {compatible}");
    }
    for (major, compatible) in [
        ("heic", "mif1"),
        ("heix", ""),
        ("hevc", "msf1"),
        ("heim", ""),
        ("hevs", ""),
        ("mif1", "miafheic"),
        ("msf1", "hevc"),
    ] {
        assert_eq!(told(major, compatible), "a HEIC file", "{major} {compatible}");
    }
    assert_eq!(told("mif1", "miaf"), "a HEIF file");
    assert_eq!(told("crx ", "isom"), "a Canon raw file (CR3)");
    assert_eq!(told("isom", "iso2avc1mp41"), "a video");
    assert_eq!(told("qt  ", ""), "a video");
    assert_snapshot!(refusal(&kind("brand-mif1.avif")), @"an AVIF file is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; convert it to PNG first (`avifdec in.avif out.png`)");
}

#[test]
fn pictures_of_formats_that_are_not_read_are_named() {
    let told = |file: &[u8]| {
        let message = refusal(file);
        message.split(" is not").next().unwrap().to_owned()
    };
    assert_eq!(
        told(b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 "),
        "a JPEG 2000 file"
    );
    assert_eq!(told(b"\xff\x4f\xff\x51\0\x2f"), "a JPEG 2000 file");
    assert_eq!(told(b"\xff\x0a\xfa\x1f"), "a JPEG XL file");
    assert_eq!(told(b"II+\0\x08\0\0\0"), "a BigTIFF file");
    assert_eq!(told(b"MM\0+\0\x08\0\0"), "a BigTIFF file");
    assert_eq!(told(b"MM\0*\0\0\0\x08"), "a TIFF file");
    assert_eq!(told(b"8BPS\0\x01\0\0"), "a Photoshop file (PSD)");
    assert_eq!(told(b"P6\n2 2\n255\nabcdefghijkl"), "a PNM picture");
    assert_eq!(told(b"RIFF\x10\0\0\0AVI LIST"), "a video");
    assert_eq!(told(&[0; 300]), "a file of nothing but zero bytes");
    assert_snapshot!(refusal(b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 "), @"a JPEG 2000 file is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; convert it to PNG first (`opj_decompress -i in.jp2 -o out.png`)");
    assert_snapshot!(refusal(b"II+\0\x08\0\0\0"), @"a BigTIFF file is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; convert it to PNG first, e.g. with ImageMagick (`magick INPUT out.png`)");
    assert_snapshot!(refusal(&[0; 300]), @"a file of nothing but zero bytes is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; a download or a copy broke off before its contents came: fetch it again");
}

#[test]
fn texts_in_place_of_pictures_are_named() {
    let told = |text: &str| {
        let message = refusal(text.as_bytes());
        message.split(" is not").next().unwrap().to_owned()
    };
    for page in [
        "<!doctype html><html><body>404</body></html>",
        "<!DOCTYPE html>",
        "\n\t <!DocType HTML PUBLIC \"-//W3C//DTD HTML 4.01//EN\">",
        "\u{feff}<html lang=en>",
        "<!-- saved -->\n<HTML>",
        "<head><title>Not found</title>",
        "<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0//EN\"><html xmlns=\"x\"><svg/></html>",
    ] {
        assert_eq!(told(page), "a web page", "{page}");
    }
    let utf16: Vec<u8> = "\u{feff}<html>"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert!(refusal(&utf16).starts_with("a web page"));
    assert_eq!(
        told("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"),
        "an XML document"
    );
    assert_eq!(told("<Error><Code>NoSuchKey</Code></Error>"), "an XML document");
    assert_eq!(
        told("<?xml version='1.0'?>\n<!-- drawn --><svg xmlns='http://www.w3.org/2000/svg'/>"),
        "an SVG drawing"
    );
    assert_eq!(told(" <SVG/>"), "an SVG drawing");
    assert_eq!(told("{\"error\": {\"code\": 404}}\n"), "a JSON document");
    assert_eq!(told("[]"), "a JSON document");
    assert_eq!(told("{not json"), "a text file");
    assert_eq!(told("<3 pictures"), "a text file");
    assert_eq!(told("GIF89a is a format"), "a text file");
    assert_eq!(told("BM, as in bitmap"), "a text file");
    assert_eq!(
        told("data:image/png;base64,iVBORw0KGgo="),
        "a data URL, which holds a picture as text,"
    );
    assert_eq!(told("/9j/4AAQSkZJRgABAQ"), "a picture written as base64 text");
    assert!(refusal(b"Gr\xfc\xdfe aus K\xf6ln am Rhein\r\n").starts_with("a text file"));
    assert_snapshot!(told("hello there"), @"a text file");
    assert_snapshot!(refusal(b"<!doctype html>"), @"a web page is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; a server may have sent it in place of the picture: fetch it again, from the picture's own address");
    assert_snapshot!(refusal(b"{\"message\": \"Not Found\"}"), @"a JSON document is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; a server may have sent it in place of the picture: fetch it again, from the picture's own address");
    assert_snapshot!(refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"), @"a Git LFS pointer, in place of the file that it stands for, is not a picture that can be read: expected PNG, JPEG, WebP, GIF or BMP; fetch the file itself with `git lfs pull`");
}

#[cfg(unix)]
#[test]
fn pipes_are_read_and_what_has_no_bytes_is_named() {
    use std::{os::unix::net::UnixListener, process::Command, thread};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let through_pipe = |bytes: Vec<u8>, limit: u64| {
        let pipe = path("pipe.png");
        let _ = fs::remove_file(&pipe);
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let writer = {
            let pipe = pipe.clone();
            thread::spawn(move || fs::write(pipe, bytes))
        };
        let read = plain(8).with_limits(limit, 1 << 20).open(&pipe);
        let _ = writer.join().unwrap(); // fails where the reader went away at its limit
        read.map_err(|error| {
            error
                .to_string()
                .replace(folder.path().to_str().unwrap(), "FOLDER")
        })
    };
    let cat = input("cat.png");
    let whole = plain(8).process(&cat).unwrap();
    assert_eq!(
        through_pipe(cat.clone(), 1 << 20).unwrap().pixels(),
        whole.pixels()
    );
    assert_snapshot!(through_pipe(cat, 40_000).unwrap_err(), @"'FOLDER/pipe.png': the picture file has 40001 bytes, more than the limit of 40000");
    assert_snapshot!(through_pipe(Vec::new(), 40_000).unwrap_err(), @"'FOLDER/pipe.png': the picture is empty (0 bytes): expected PNG, JPEG, WebP, GIF or BMP");
    let _listener = UnixListener::bind(path("socket")).unwrap();
    let error = plain(8).open(path("socket")).unwrap_err().to_string();
    assert_snapshot!(error.replace(folder.path().to_str().unwrap(), "FOLDER"), @"'FOLDER/socket': it is a socket: expected a picture file, as PNG, JPEG, WebP, GIF or BMP");
}
