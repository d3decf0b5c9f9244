//! Names of environment variables: which setting each is, and which was meant by one that is none.

use super::{keys, suggest};

/// Variables that begin so are settings.
const PREFIX: &str = "TICKCAST__";

/// Variables that begin so may have been meant as settings: one underscore where two belong is the usual mistake.
const BEGINNING: &str = "TICKCAST_";

/// Variables of the client verbs; a node does not read them.
const CLIENT_PREFIX: &str = "TICKCAST__CLIENT__";
const CLIENT: [&str; 4] = [
    "TICKCAST__CLIENT__URL",
    "TICKCAST__CLIENT__ADMIN_URL",
    "TICKCAST__CLIENT__KEY",
    "TICKCAST__CLIENT__CA",
];

/// Letters by which a name that is ignored may differ from a setting's to be worth a word. Few, because Kubernetes sets
/// variables such as `TICKCAST_PORT` for a service of that name.
const LETTERS: usize = 1;

/// Whether a variable is worth keeping: the others are nobody's business.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(BEGINNING)
}

/// The setting that a variable sets.
pub(super) fn setting(variable: &str) -> Option<String> {
    let path = variable.strip_prefix(PREFIX).filter(|_| !variable.starts_with(CLIENT_PREFIX))?;
    Some(path.to_ascii_lowercase().replace("__", "."))
}

/// The variable that sets a setting.
pub(super) fn variable(setting: &str) -> String {
    format!("{PREFIX}{}", setting.to_ascii_uppercase().replace('.', "__"))
}

/// The variable that was probably meant by one that is not read.
pub(super) fn meant(name: &str) -> Option<String> {
    if CLIENT.contains(&name) || setting(name).is_some() {
        return None;
    }
    // With single underscores all ways to write a name are the same.
    let plain =
        |name: &str| name.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
    let known = keys().map(|key| variable(key.name)).chain(CLIENT.map(str::to_owned));
    let known: Vec<_> = known.map(|name| (plain(&name), name)).collect();
    let name = plain(name);
    let nearest = suggest::nearest(&name, LETTERS, known.iter().map(|(plain, _)| plain.as_str()))?;
    known.iter().find(|(plain, _)| plain == nearest).map(|(_, name)| name.clone())
}

/// The variables among these names that were probably meant for the client verbs and are not read, with the right name.
pub fn misnamed_of_clients<'a>(
    names: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = (&'a str, String)> {
    let ours = names.filter(|name| is_ours(name));
    ours.filter_map(|name| Some((name, meant(name)?)))
        .filter(|(_, meant)| CLIENT.contains(&meant.as_str()))
}

#[test]
fn names_that_were_meant() {
    let check = |name: &str, expected: Option<&str>| {
        assert_eq!(meant(name).as_deref(), expected, "{name}");
    };
    check("TICKCAST_SERVER_LISTEN", Some("TICKCAST__SERVER__LISTEN"));
    check("TICKCAST_SERVER__LISTEN", Some("TICKCAST__SERVER__LISTEN"));
    check("TICKCAST_SERVER_LISTN", Some("TICKCAST__SERVER__LISTEN"));
    check("TICKCAST_BROKER_REDIS_URL", Some("TICKCAST__BROKER__REDIS__URL"));
    check("TICKCAST_CLIENT_URL", Some("TICKCAST__CLIENT__URL"));
    check("TICKCAST__CLIENT__URI", Some("TICKCAST__CLIENT__URL"));
    // What is read, and what Kubernetes sets for services called `tickcast` and `tickcast-server`.
    for other in [
        "TICKCAST__SERVER__LISTEN",
        "TICKCAST__SERVER_LISTEN",
        "TICKCAST__CLIENT__KEY",
        "TICKCAST_PORT",
        "TICKCAST_SERVICE_HOST",
        "TICKCAST_PORT_8080_TCP_ADDR",
        "TICKCAST_SERVER_PORT",
        "TICKCAST_HOME",
    ] {
        check(other, None);
    }
    for key in keys() {
        check(&variable(key.name).replace("__", "_"), Some(&variable(key.name)));
    }
}
