//! Adds the files of a folder to a machine's initramfs, at their paths below the folder.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::lab::initramfs::Archive;

/// Adds everything below a folder, in the order of names: files, links as links, and empty folders.
pub(super) fn add(archive: &mut Archive, tree: &Path) -> Result<()> {
    add_below(archive, tree, "").with_context(|| format!("add tree {}", tree.display()))
}

fn add_below(archive: &mut Archive, folder: &Path, inside: &str) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().with_context(|| format!("read {}", folder.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("read {}: its name is no UTF-8", path.display()))?;
        let name = if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
        let kind = entry.file_type().with_context(|| format!("read {}", path.display()))?;
        if kind.is_dir() {
            archive.folder(&name);
            add_below(archive, &path, &name)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(|| format!("read link {}", path.display()))?;
            archive.link(&name, target.to_str().with_context(|| format!("read link {}: no UTF-8", path.display()))?);
        } else if kind.is_file() {
            archive.file(&name, &fs::read(&path).with_context(|| format!("read file {}", path.display()))?);
        } else {
            bail!("read {}: it is no file, folder or link", path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    #[test]
    fn a_tree_is_added_with_its_folders_and_links_and_anything_else_is_an_error() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("usr/empty")).unwrap();
        fs::write(tree.path().join("usr/b"), "content").unwrap();
        symlink("b", tree.path().join("usr/a")).unwrap();
        let mut added = Archive::default();
        add(&mut added, tree.path()).unwrap();
        let mut expected = Archive::default();
        expected.link("usr/a", "b");
        expected.file("usr/b", b"content");
        expected.folder("usr/empty");
        assert!(added.finish() == expected.finish());

        let _socket = UnixListener::bind(tree.path().join("socket")).unwrap();
        let error = add(&mut Archive::default(), tree.path()).unwrap_err();
        assert!(format!("{error:#}").contains("socket: it is no file, folder or link"), "{error:#}");
        assert!(add(&mut Archive::default(), &tree.path().join("none")).is_err());
    }
}
