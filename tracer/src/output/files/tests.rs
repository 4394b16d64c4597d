//! Tests of files that are created, replaced and locked.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

fn refusal(path: &Path) -> String {
    create(path, false).err().expect("a refusal").to_string()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Writes a first part that is whole.
fn write(path: &Path, bytes: &[u8]) -> Box<dyn Write + Send> {
    let mut out = create(path, true).unwrap();
    out.write_all(bytes).unwrap();
    out.flush().unwrap();
    out
}

fn names(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn existing_content_is_kept_and_no_symbolic_link_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (file, link) = (dir.join("a"), dir.join("link"));
    drop(write(&file, b"old"));
    assert_eq!(mode(&file), 0o600);
    assert!(refusal(&file).contains("--overwrite"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(refusal(&link).contains("symbolic link"));
    std::os::unix::fs::symlink(dir.join("none"), dir.join("dangling")).unwrap();
    assert!(refusal(&dir.join("dangling")).contains("symbolic link"));
    assert!(refusal(&dir.join("no/such/folder")).contains("no/such/folder"));
    assert!(refusal(dir).contains("Is a directory") && refusal(Path::new("/")).contains('/'));
    assert_eq!(fs::read(&file).unwrap(), b"old");
}

#[test]
fn an_old_file_stays_until_the_first_part_of_the_new_one_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (old, other) = (folder.path().join("old"), folder.path().join("other"));
    fs::write(&old, "old").unwrap();
    fs::hard_link(&old, &other).unwrap();
    let mut out = create(&old, true).unwrap();
    out.write_all(b"half").unwrap();
    assert_eq!(fs::read(&old).unwrap(), b"old");
    drop(out);
    assert_eq!((fs::read(&old).unwrap(), names(folder.path())), (b"old".to_vec(), 2), "nothing else is left");
    let mut out = write(&old, b"first");
    assert_eq!(fs::read(&old).unwrap(), b"first");
    out.write_all(b", second").unwrap();
    drop(out);
    assert_eq!((fs::read(&old).unwrap(), mode(&old)), (b"first, second".to_vec(), 0o600));
    assert_eq!(fs::read(&other).unwrap(), b"old", "the file's other name");
    assert_eq!(names(folder.path()), 2);
}

#[test]
fn a_new_file_that_gets_nothing_whole_is_removed_unless_another_one_has_come_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    drop(create(&file, false).unwrap());
    create(&file, false).unwrap().write_all(b"half").unwrap();
    assert_eq!(names(folder.path()), 0);
    let out = create(&file, false).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, "another").unwrap();
    drop(out);
    assert_eq!(fs::read(&file).unwrap(), b"another");
}

#[test]
fn a_file_that_came_meanwhile_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (file, another) = (folder.path().join("a"), folder.path().join("b"));
    fs::write(&file, "old").unwrap();
    let mut out = create(&file, true).unwrap();
    fs::write(&another, "another").unwrap();
    fs::rename(&another, &file).unwrap();
    out.write_all(b"new").unwrap();
    assert!(out.flush().unwrap_err().to_string().contains("another process"));
    assert_eq!((fs::read(&file).unwrap(), names(folder.path())), (b"another".to_vec(), 1));
    // Nothing is lost where the old file has gone.
    let mut out = create(&file, true).unwrap();
    fs::remove_file(&file).unwrap();
    out.write_all(b"new").unwrap();
    out.flush().unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"new");
}

#[test]
fn a_folder_that_is_moved_and_replaced_by_a_link_leads_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, moved, target] = ["dir", "moved", "target"].map(|name| folder.path().join(name));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&target).unwrap();
    for name in ["old", "new"] {
        fs::write(target.join(name), "not theirs").unwrap();
    }
    fs::write(dir.join("old"), "old").unwrap();
    let (mut old, new) = (create(&dir.join("old"), true).unwrap(), create(&dir.join("new"), false).unwrap());
    fs::rename(&dir, &moved).unwrap();
    std::os::unix::fs::symlink(&target, &dir).unwrap();
    old.write_all(b"replaced").unwrap();
    old.flush().unwrap();
    drop(new);
    assert_eq!(fs::read(moved.join("old")).unwrap(), b"replaced");
    assert!(!moved.join("new").exists());
    for name in ["old", "new"] {
        assert_eq!(fs::read(target.join(name)).unwrap(), b"not theirs");
    }
}

#[test]
fn a_file_of_the_kernel_is_not_empty_and_is_left_alone() {
    for file in ["/proc/self/comm", "/proc/self/oom_score_adj", "/sys/kernel/mm/transparent_hugepage/enabled"] {
        if create(Path::new(file), true).err().is_none_or(|e| !e.to_string().contains("interface of the kernel")) {
            // Without root it cannot even be opened.
            assert!(!Path::new(file).exists() || !rustix::process::geteuid().is_root(), "{file}");
        }
    }
    assert!(refusal(Path::new("/proc/self/fd/0")).contains("symbolic link"));
    assert!(create(Path::new("/dev/null"), false).is_ok());
}

#[test]
fn an_empty_file_is_replaced_if_it_is_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let planted = File::options().read(true).write(true).open(&file).unwrap();
    drop(write(&file, b"new"));
    assert_eq!((fs::read(&file).unwrap(), mode(&file)), (b"new".to_vec(), 0o600));
    assert_eq!(planted.metadata().unwrap().len(), 0, "who has opened it before sees nothing");
    if rustix::process::geteuid().is_root() {
        fs::write(&file, "").unwrap();
        std::os::unix::fs::chown(&file, Some(4321), None).unwrap();
        assert!(refusal(&file).contains("user 4321") && refusal(&file).contains("--overwrite"));
        drop(write(&file, b"new"));
        assert_eq!(file.metadata().unwrap().uid(), 0);
    }
}

#[test]
fn a_file_that_is_being_written_is_refused_and_the_writer_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    let me = std::process::id().to_string();
    let refused = || {
        for overwrite in [false, true] {
            let refusal = create(&file, overwrite).err().unwrap().to_string();
            assert!(refusal.contains("is writing it") && refusal.contains(&me), "{refusal}");
            assert!(WholeFile::create(&file, overwrite).is_err());
        }
    };
    // A new one, an old one that will be replaced, and what replaced it.
    let first = create(&file, false).unwrap();
    refused();
    drop(first);
    fs::write(&file, "old").unwrap();
    let mut first = create(&file, true).unwrap();
    first.write_all(b"first").unwrap();
    refused();
    first.flush().unwrap();
    refused();
    assert_eq!(fs::read(&file).unwrap(), b"first");
    drop(first);
    drop(create(&file, true).unwrap());
    // A file in whose place another one has come would be lost.
    let gone = File::create(folder.path().join("b")).unwrap();
    fs::rename(&file, folder.path().join("b")).unwrap();
    let spot = spot(&folder.path().join("b")).unwrap();
    assert!(lock(&gone, &spot).unwrap_err().to_string().contains("replaced"));
}

#[test]
fn a_whole_file_replaces_an_old_one_only_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    fs::write(&old, "old").unwrap();
    assert!(WholeFile::create(&old, false).is_err());
    for file in [&old, &new] {
        let mut whole = WholeFile::create(file, true).unwrap();
        whole.write_all(b"half").unwrap();
        whole.flush().unwrap();
    }
    assert_eq!((fs::read(&old).unwrap(), names(folder.path())), (b"old".to_vec(), 1), "nothing else is left");
    for file in [&old, &new] {
        let mut whole = WholeFile::create(file, true).unwrap();
        whole.write_all(b"whole").unwrap();
        whole.take_place().unwrap();
        assert_eq!((fs::read(file).unwrap(), mode(file)), (b"whole".to_vec(), 0o600));
    }
    assert_eq!(names(folder.path()), 2);
}
