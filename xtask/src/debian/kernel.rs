//! Debian's kernel packages: which one the lab boots of a series, and the packages that it consists of.

use anyhow::{Context, Result};

use crate::debian::{apt, index::Package, series::Kernel};

/// The newest kernel of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) kernel: Kernel,
    /// Release, as in `uname -r`: `6.12.117+deb12-cloud-amd64`.
    pub(crate) release: String,
    /// Version of the package: `6.12.117-1~deb12u1`.
    pub(crate) version: String,
    /// Debian's suite that has it.
    pub(crate) suite: String,
}

impl Offered {
    /// Name of the package that stands for the whole kernel.
    pub(super) fn image(&self) -> String {
        format!("{IMAGE}{}", self.release)
    }

    /// Whether it is a release candidate.
    pub(crate) fn is_candidate(&self) -> bool {
        self.version.contains("~rc")
    }
}

const IMAGE: &str = "linux-image-";
/// The packages with the files of an image, on which it depends since Linux 6.19.
const FILES: [&str; 2] = ["linux-binary-", "linux-modules-"];
/// The package with the configuration of an image, which nobody needs who only boots it.
const BASE: &str = "linux-base-";

/// Returns the newest kernel of every series, from old to new. `home` is the release of Debian that runs here, such as
/// `bookworm`. A series comes from this release if it has it, else from another release, else from sid or experimental,
/// because a module needs the compiler of its kernel's suite.
pub(super) fn newest_of_each(packages: &[Package], home: &str) -> Vec<Offered> {
    let mut newest: Vec<Offered> = Vec::new();
    let is_whole = |package: &&Package| lacks(packages, package).is_none();
    for kernel in packages.iter().filter(is_whole).filter_map(offered) {
        let Some(other) = newest.iter_mut().find(|other| other.kernel == kernel.kernel) else {
            newest.push(kernel);
            continue;
        };
        let ranks = distance(&kernel.suite, home).cmp(&distance(&other.suite, home));
        if ranks.then_with(|| apt::compare(&other.version, &kernel.version)).is_lt() {
            *other = kernel;
        }
    }
    newest.sort_by_key(|kernel| kernel.kernel);
    newest
}

/// How far a suite is from this machine's release.
fn distance(suite: &str, home: &str) -> u8 {
    match suite {
        "sid" | "experimental" => 2,
        suite if suite.split('-').next() != Some(home) => 1,
        _ => 0,
    }
}

/// Returns the newest kernel of a series. The error lists the series that are offered.
pub(super) fn newest(packages: &[Package], kernel: Kernel, home: &str) -> Result<Offered> {
    let all = newest_of_each(packages, home);
    let series: Vec<_> = all.iter().map(|offered| offered.kernel.to_string()).collect();
    let found = all.into_iter().find(|offered| offered.kernel == kernel);
    found.with_context(|| {
        let images = packages.iter().filter(|package| offered(package).is_some_and(|image| image.kernel == kernel));
        let lacking = images.filter_map(|image| Some(format!("{} without {}, ", image.name, lacks(packages, image)?)));
        let lacking = lacking.max().unwrap_or_default();
        format!("find kernel {kernel}: Debian's suites offer {lacking}{}", series.join(", "))
    })
}

/// Returns the name of a part of an image's kernel that no suite offers any more; none if the kernel is whole. Debian removes
/// the signed packages of a superseded kernel later than the others.
fn lacks(packages: &[Package], image: &Package) -> Option<String> {
    let release = image.name.strip_prefix(IMAGE)?;
    let parts = FILES.into_iter().map(|part| format!("{part}{release}"));
    let mut needed = parts.filter(|part| image.depends.split([' ', ',']).any(|word| word == part));
    needed.find(|part| !packages.iter().any(|package| package.name == *part && package.version == image.version))
}

/// Returns the packages of a kernel: since Linux 6.19 its image only depends on others, which have the files.
pub(super) fn parts<'a>(packages: &'a [Package], kernel: &Offered) -> Vec<&'a Package> {
    let is_part = |package: &&Package| {
        let name = package.name.strip_suffix(&kernel.release);
        package.version == kernel.version
            && name.is_some_and(|kind| kind == IMAGE || kind == BASE || FILES.contains(&kind))
    };
    let mut parts: Vec<_> = packages.iter().filter(is_part).collect();
    // A version may be in several suites.
    parts.sort_by_key(|package| &package.name);
    parts.dedup_by_key(|package| &package.name);
    parts
}

/// Returns the kernel of an image package in the lab's flavour; none for any other package.
fn offered(package: &Package) -> Option<Offered> {
    let kernel = series_of(&package.name)?;
    // A package such as linux-image-6.12-cloud-amd64 has no kernel and depends on the newest one.
    if package.depends.contains(IMAGE) {
        return None;
    }
    let release = package.name.strip_prefix(IMAGE)?.to_owned();
    Some(Offered { kernel, release, version: package.version.clone(), suite: package.suite.clone() })
}

/// Returns the series of an image package if it has the flavour that the lab boots: the plain one up to 6.1, whose cloud
/// flavour has no KVM, and the smaller cloud one of later series.
pub(super) fn series_of(package: &str) -> Option<Kernel> {
    let release = package.strip_prefix(IMAGE)?.strip_suffix("-amd64")?;
    let (numbers, is_cloud) = release.strip_suffix("-cloud").map_or((release, false), |numbers| (numbers, true));
    let end = numbers.match_indices(|c: char| !c.is_ascii_digit()).nth(1).map_or(numbers.len(), |(at, _)| at);
    let kernel: Kernel = numbers[..end].parse().ok()?;
    // No other flavour, such as `-rt`.
    let is_plain = numbers.split('-').all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    (is_plain && is_cloud == (kernel > Kernel::V6_1)).then_some(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, suite: &str) -> Package {
        let depends = match name {
            "linux-image-6.12-cloud-amd64" => "linux-image-6.12.117+deb12-cloud-amd64 (= 1)".into(),
            // Its modules are in the image, and its base is gone.
            name if name.starts_with("linux-image-6.18.15") => {
                "kmod, linux-base-6.18.15+deb13-cloud-amd64 (= 6.18.15-1)".into()
            }
            name if name.starts_with("linux-image-7.3.4") || name.starts_with("linux-image-6.19.14") => {
                let release = name.strip_prefix(IMAGE).unwrap();
                format!("kmod, linux-binary-{release} (= {version}), linux-modules-{release} (= {version})")
            }
            _ => "kmod".to_owned(),
        };
        let uri = format!("http://mirror/{name}");
        let sha256 = "00".into();
        Package { name: name.into(), version: version.into(), depends, suite: suite.into(), uri, sha256 }
    }

    fn packages() -> Vec<Package> {
        [
            ("linux-image-5.10.0-46-amd64", "5.10.262-1", "bullseye-security"),
            ("linux-image-5.10.0-46-cloud-amd64", "5.10.262-1", "bullseye-security"),
            ("linux-image-6.1.0-56-amd64", "6.1.192-2", "bookworm-security"),
            ("linux-image-6.1.0-56-rt-amd64", "6.1.192-9", "bookworm-security"),
            ("linux-image-6.12.95+deb12-cloud-amd64", "6.12.95-1~deb12u1", "bookworm-backports"),
            ("linux-image-6.12.117+deb12-cloud-amd64", "6.12.117-1~deb12u1", "bookworm-security"),
            ("linux-image-6.12-cloud-amd64", "6.12.999-1", "bookworm-security"),
            ("linux-image-6.12.118+deb13-cloud-amd64", "6.12.118-1", "trixie-security"),
            ("linux-image-6.18.15+deb13-cloud-amd64", "6.18.15-1", "trixie-backports"),
            ("linux-image-6.19.14+deb13-cloud-amd64", "6.19.14-1~bpo13+1", "trixie-backports"),
            ("linux-binary-6.19.14+deb13-cloud-amd64", "6.19.14-1~bpo13+1", "trixie-backports"),
            ("linux-image-7.2.12+deb13-cloud-amd64", "7.2.12-1~bpo13+1", "trixie-backports"),
            ("linux-image-7.2.13+deb14-cloud-amd64", "7.2.13-1", "sid"),
            ("linux-image-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1", "trixie-backports"),
            ("linux-binary-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1", "trixie-backports"),
            ("linux-modules-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1", "trixie-backports"),
            ("linux-modules-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1", "sid"),
            ("linux-modules-7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", "trixie-backports"),
            ("linux-base-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1", "trixie-backports"),
            ("linux-image-7.3-cloud-amd64", "7.3~rc7-1~exp1", "experimental"),
            ("linux-image-7.4-cloud-amd64", "7.4~rc1-1~exp1", "experimental"),
        ]
        .map(|(name, version, suite)| package(name, version, suite))
        .to_vec()
    }

    fn versions(home: &str) -> Vec<(String, String)> {
        newest_of_each(&packages(), home).into_iter().map(|o| (o.kernel.to_string(), o.version)).collect()
    }

    #[test]
    fn the_newest_version_of_each_series_is_chosen_by_dpkgs_rules() {
        let expected = [
            ("5.10", "5.10.262-1"),
            ("6.1", "6.1.192-2"),
            ("6.12", "6.12.118-1"),
            ("6.18", "6.18.15-1"),
            ("7.2", "7.2.12-1~bpo13+1"),
            // A release candidate is older than its release.
            ("7.3", "7.3.4-1~bpo13+1"),
            ("7.4", "7.4~rc1-1~exp1"),
        ];
        assert_eq!(versions("trixie"), expected.map(|(series, version)| (series.into(), version.into())));
        let candidates: Vec<_> = newest_of_each(&packages(), "trixie").iter().map(Offered::is_candidate).collect();
        assert_eq!(candidates, [false, false, false, false, false, false, true]);
    }

    #[test]
    fn a_series_that_this_machines_release_has_comes_from_there() {
        let newest = versions("bookworm");
        assert_eq!(newest[2].1, "6.12.117-1~deb12u1", "neither the superseded one nor that of another release");
        assert_eq!(newest[4].1, "7.2.12-1~bpo13+1", "one that it lacks comes from another release, not from sid");
    }

    #[test]
    fn a_kernel_consists_of_all_packages_of_its_release_and_version() {
        let packages = packages();
        let names = |series: &str| -> Vec<_> {
            let kernel = newest(&packages, series.parse().unwrap(), "bookworm").unwrap();
            parts(&packages, &kernel).iter().map(|part| part.name.clone()).collect()
        };
        assert_eq!(names("6.1"), ["linux-image-6.1.0-56-amd64"]);
        let release = "7.3.4+deb13-cloud-amd64";
        assert_eq!(names("7.3"), ["base", "binary", "image", "modules"].map(|kind| format!("linux-{kind}-{release}")));
    }

    #[test]
    fn a_series_that_is_not_offered_is_an_error_that_lists_the_others() {
        let error = newest(&packages(), "6.6".parse().unwrap(), "bookworm").unwrap_err().to_string();
        assert_eq!(error, "find kernel 6.6: Debian's suites offer 5.10, 6.1, 6.12, 6.18, 7.2, 7.3, 7.4");
    }

    #[test]
    fn a_kernel_whose_modules_are_gone_is_not_offered_and_the_error_says_so() {
        let error = newest(&packages(), "6.19".parse().unwrap(), "bookworm").unwrap_err().to_string();
        let release = "6.19.14+deb13-cloud-amd64";
        let gone = format!("linux-image-{release} without linux-modules-{release}, 5.10,");
        assert!(error.starts_with(&format!("find kernel 6.19: Debian's suites offer {gone}")), "{error}");
    }

    #[test]
    fn the_flavour_that_the_lab_boots_is_recognized_by_the_packages_name() {
        let series = |package: &str| series_of(package).map(|kernel| kernel.to_string());
        for (package, expected) in [
            ("linux-image-5.10.0-46-amd64", "5.10"),
            ("linux-image-6.1.0-56-amd64", "6.1"),
            ("linux-image-6.1.0-0.deb11.52-amd64", "6.1"),
            ("linux-image-6.12.117+deb12-cloud-amd64", "6.12"),
            ("linux-image-6.12.90+deb13.1-cloud-amd64", "6.12"),
            ("linux-image-7.3-cloud-amd64", "7.3"),
        ] {
            assert_eq!(series(package).as_deref(), Some(expected), "{package}");
        }
        for package in [
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-rt-amd64",
            "linux-image-6.1.0-56-amd64-dbg",
            "linux-image-6.1.0-56-amd64-unsigned",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.117+deb12-rt-amd64",
            "linux-image-amd64",
            "linux-image-cloud-amd64",
            "linux-binary-7.3-cloud-amd64",
        ] {
            assert_eq!(series(package), None, "{package}");
        }
    }
}
