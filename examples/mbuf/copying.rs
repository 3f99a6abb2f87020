//! The same graph without shared memory, to compare with.

use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{MESSAGES, finish, start, verify, words_of};

/// The same graph with each message copied into a socket and out again, and the same work on it.
pub fn copying() -> Duration {
    let links = [(); 3].map(|()| UnixStream::pair().expect("a socket pair"));
    let begun = Instant::now();
    let nodes = [
        start(|| {
            let mut down = writer(&links[0].0);
            for number in 0..MESSAGES {
                let mut bytes = Vec::with_capacity(8 * words_of(number));
                (0..words_of(number)).for_each(|_| bytes.extend(number.to_ne_bytes()));
                send(&mut down, &bytes);
            }
        }),
        start(|| {
            let (mut up, mut down) = (reader(&links[0].1), writer(&links[1].0));
            for _ in 0..MESSAGES {
                let words = receive(&mut up);
                let plus_one = words.chunks_exact(8).flat_map(|word| {
                    (u64::from_ne_bytes(word.try_into().expect("8 bytes")) + 1).to_ne_bytes()
                });
                send(&mut down, &plus_one.collect::<Vec<u8>>());
            }
        }),
        start(|| {
            let (mut up, mut down) = (reader(&links[1].1), writer(&links[2].0));
            (0..MESSAGES).for_each(|_| send(&mut down, &receive(&mut up)));
        }),
        start(|| {
            let mut up = reader(&links[2].1);
            for number in 0..MESSAGES {
                let bytes = receive(&mut up);
                let word = |word: &[u8]| u64::from_ne_bytes(word.try_into().expect("8 bytes"));
                verify(number, bytes.chunks_exact(8).map(word));
            }
        }),
    ];
    finish(nodes);
    begun.elapsed()
}

fn writer(socket: &UnixStream) -> BufWriter<&UnixStream> {
    BufWriter::with_capacity(64 << 10, socket)
}

fn reader(socket: &UnixStream) -> BufReader<&UnixStream> {
    BufReader::with_capacity(64 << 10, socket)
}

fn send(down: &mut impl Write, bytes: &[u8]) {
    down.write_all(&(bytes.len() as u64).to_ne_bytes())
        .expect("the link holds");
    down.write_all(bytes).expect("the link holds");
}

fn receive(up: &mut impl Read) -> Vec<u8> {
    let mut len = [0; 8];
    up.read_exact(&mut len).expect("the link holds");
    let mut bytes = vec![0; u64::from_ne_bytes(len) as usize];
    up.read_exact(&mut bytes).expect("the link holds");
    bytes
}
