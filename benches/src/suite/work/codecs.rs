//! A picture service: large buffers, few of them.

use jpeg_encoder::{ColorType, Encoder};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

use super::parallel::parallel;
use crate::suite::Job;

pub fn run(job: &Job) -> u64 {
    parallel(
        job.threads,
        job.portion(16),
        || (),
        |(), index| {
            let (width, height) = (400 + 40 * (index as u16 % 7), 300 + 25 * (index as u16 % 5));
            let picture = picture(width, height, index as u64);
            let png = write_png(&picture, width, height);
            let read = read_png(&png);
            assert!(read == picture, "a PNG changes no pixel");
            let small = halve(&read, width.into(), height.into());
            let jpeg = write_jpeg(&small, width / 2, height / 2);
            let pixels = JpegDecoder::new(ZCursor::new(&jpeg))
                .decode()
                .expect("what was just written");
            (png.len() + jpeg.len() + pixels.len()) as u64
        },
    )
}

/// Gradients with a little noise.
fn picture(width: u16, height: u16, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            pixels.push((x >> 1) as u8);
            pixels.push((y >> 1) as u8);
            pixels.push(((x ^ y) as u8 & 0xf0) | random.u8(..8));
        }
    }
    pixels
}

fn write_png(pixels: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width.into(), height.into());
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a vector takes all");
    writer
        .write_image_data(pixels)
        .expect("as many pixels as announced");
    drop(writer);
    bytes
}

fn read_png(bytes: &[u8]) -> Vec<u8> {
    let decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    let mut reader = decoder.read_info().expect("what was just written");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a small picture")];
    reader
        .next_frame(&mut pixels)
        .expect("what was just written");
    pixels
}

fn halve(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut small = Vec::new();
    for y in 0..height / 2 {
        for x in 0..width / 2 {
            let at = (2 * y * width + 2 * x) * 3;
            small.extend_from_slice(&pixels[at..at + 3]);
        }
    }
    small
}

fn write_jpeg(pixels: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, 80)
        .encode(pixels, width, height, ColorType::Rgb)
        .expect("a vector takes all");
    bytes
}
