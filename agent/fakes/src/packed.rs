//! What the engine packs of a container: `GET /containers/ID/archive`.

use tar::{Builder, EntryType, Header};

/// A regular file, under its own name.
#[must_use]
pub fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    add(&mut builder, name, bytes);
    builder.into_inner().unwrap()
}

/// A folder and the files in it.
#[must_use]
pub fn folder(name: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    let top = format!("{name}/");
    builder.append_data(&mut header, &top, &[][..]).unwrap();
    for (file, bytes) in files {
        add(&mut builder, &format!("{name}/{file}"), bytes);
    }
    builder.into_inner().unwrap()
}

/// A symbolic link.
#[must_use]
pub fn link(name: &str, target: &str) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, name, target).unwrap();
    builder.into_inner().unwrap()
}

fn add(builder: &mut Builder<Vec<u8>>, path: &str, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, path, bytes).unwrap();
}
