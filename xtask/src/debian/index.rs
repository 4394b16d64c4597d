//! Lists of packages, pure: stanzas of a suite's list in, packages out.

/// A binary package of one of Debian's suites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// Names and versions of the packages that it needs.
    pub(super) depends: String,
    /// The suite that offers it: `trixie-backports`.
    pub(super) suite: String,
    /// Address of the archive.
    pub(super) uri: String,
    /// SHA256 of the archive, in hexadecimal, from the suite's signed list.
    pub(super) sha256: String,
}

/// Returns the stanzas of kernel packages in a suite's list, with the suite and each archive's address added.
pub(super) fn reduced(list: &str, suite: &str, repository: &str) -> String {
    const FIELDS: [&str; 4] = ["Package: ", "Version: ", "Depends: ", "SHA256: "];
    let mut text = String::new();
    for stanza in list.split("\n\n").map(str::trim_start).filter(|stanza| stanza.starts_with("Package: linux-")) {
        for line in stanza.lines() {
            if FIELDS.iter().any(|field| line.starts_with(field)) {
                text += &format!("{line}\n");
            } else if let Some(path) = line.strip_prefix("Filename: ") {
                text += &format!("URI: {}/{path}\n", repository.trim_end_matches('/'));
            }
        }
        text += &format!("Suite: {suite}\n\n");
    }
    text
}

/// Returns the packages of a reduced list. A package without a hash cannot be verified and is left out.
pub(super) fn packages(reduced: &str) -> Vec<Package> {
    reduced.split("\n\n").filter_map(package).collect()
}

fn package(stanza: &str) -> Option<Package> {
    let field = |name| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
    Some(Package {
        name: field("Package")?,
        version: field("Version")?,
        depends: field("Depends").unwrap_or_default(),
        suite: field("Suite")?,
        uri: field("URI")?,
        sha256: field("SHA256")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_packages_of_a_list_keep_their_hash_and_get_their_address() {
        let list = "Package: linux-image-6.1.0-56-amd64\nVersion: 6.1.192-2\nDepends: kmod\nDescription: a\n SHA256: no\n\
            Filename: pool/l/x.deb\nSHA256: 00ff\n\nPackage: other\nVersion: 1\nSHA256: 01\n\n\
            Package: linux-base-x\nVersion: 2\nFilename: pool/y.deb\n";
        let found = packages(&reduced(list, "bookworm", "http://mirror/debian/"));
        let image = Package {
            name: "linux-image-6.1.0-56-amd64".into(),
            version: "6.1.192-2".into(),
            depends: "kmod".into(),
            suite: "bookworm".into(),
            uri: "http://mirror/debian/pool/l/x.deb".into(),
            sha256: "00ff".into(),
        };
        assert_eq!(found, [image], "a package without a hash is left out, and one that is no kernel's");
    }
}
