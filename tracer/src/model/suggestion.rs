//! The name that somebody meant who wrote another one.

/// How alike two names must be (Jaro-Winkler, 0 to 1) before one is suggested for the other.
const ALIKE: f64 = 0.8;

/// "did you mean NAME? " with the most alike of the known names; empty where none is.
pub(crate) fn did_you_mean<N: AsRef<str>>(written: &str, known: impl IntoIterator<Item = N>) -> String {
    let written = written.to_lowercase();
    let likeness = |name: N| (strsim::jaro_winkler(&written, &name.as_ref().to_lowercase()), name);
    let most = known.into_iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0));
    most.filter(|(likeness, _)| *likeness > ALIKE)
        .map(|(_, name)| format!("did you mean {}? ", name.as_ref()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_something_else_finds_none() {
        let known = ["reason", "entry", "cause", "vcpu"];
        assert_eq!(did_you_mean("resaon", known), "did you mean reason? ");
        assert_eq!(did_you_mean("VCPUS", known), "did you mean vcpu? ");
        assert_eq!(did_you_mean("zzz", known), "");
        assert_eq!(did_you_mean("x", [""; 0]), "");
    }
}
