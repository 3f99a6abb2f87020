//! A package registry: archives packed and unpacked in memory.

use std::io::{Cursor, Read, Write};

use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::parallel::parallel;
use crate::suite::Job;

/// Files to an archive.
const FILES: usize = 16;

pub fn run(job: &Job) -> u64 {
    let texts = job.corpus.markdown();
    let texts = texts.portion(job.divisor, 1);
    let packages: Vec<&[&str]> = texts.chunks(FILES).collect();
    parallel(
        job.threads,
        packages.len(),
        || (),
        |(), index| {
            let archive = pack(packages[index]);
            unpack(&archive)
        },
    )
}

fn pack(texts: &[&str]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (index, text) in texts.iter().enumerate() {
        writer
            .start_file(format!("docs/{index}.md"), SimpleFileOptions::default())
            .expect("names differ");
        writer
            .write_all(text.as_bytes())
            .expect("a vector takes all");
    }
    writer.finish().expect("a vector takes all").into_inner()
}

fn unpack(archive: &[u8]) -> u64 {
    let mut archive = ZipArchive::new(Cursor::new(archive)).expect("what was just packed");
    let mut bytes = 0;
    for index in 0..archive.len() {
        let mut text = Vec::new();
        let mut file = archive.by_index(index).expect("an index below the length");
        file.read_to_end(&mut text).expect("what was just packed");
        bytes += text.len() as u64 + file.compressed_size();
    }
    bytes
}
