//! From a text to a [`RedisUrl`], or to what is wrong with it.
//!
//! Everything that could be a piece of a password is refused before any piece of the text is quoted: once no stray `@`
//! is left, what stands behind the credentials holds none.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::{AddressError, HostPort, Login, Place, RedisUrl, Sentinels};

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Every one of them is asked and watched.
const SENTINELS_MAX: usize = 16;

/// What the kernel takes as the path of a Unix socket, without the final zero.
const SOCKET_PATH_MAX_BYTES: usize = 107;

const SCHEMES: &str = "redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://";
const ENCODE: &str = "percent-encode such characters (`@` %40, `:` %3A, `/` %2F, `?` %3F, `#` %23, `%` %25, space %20)";

pub(super) fn parse(text: &str) -> Result<RedisUrl, AddressError> {
    parse_parts(text).map_err(|Problem { what, fix }| AddressError {
        text: format!("\"{}\": {what}", without_secrets(text)),
        fix,
    })
}

/// What is wrong, and what to do; without the URL itself.
struct Problem {
    what: String,
    fix: String,
}

fn problem<T>(what: impl Into<String>, fix: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { what: what.into(), fix: fix.into() })
}

/// The parts of a URL behind its scheme, still encoded.
struct Parts<'a> {
    login: Option<Login>,
    hosts: &'a str,
    /// Without the first slash.
    path: &'a str,
    query: &'a str,
}

fn parse_parts(text: &str) -> Result<RedisUrl, Problem> {
    if text.is_empty() {
        return problem("there is no address", "write redis://host:6379");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return problem("there is a space or a line break in it", "remove it, or write %20");
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return problem("it does not begin with a scheme", format!("begin with {SCHEMES}"));
    };
    match scheme {
        "redis" => server(rest, false),
        "rediss" => server(rest, true),
        "redis+sentinel" => sentinel(rest, false),
        "rediss+sentinel" => sentinel(rest, true),
        "unix" => socket(rest),
        _ => problem("the scheme is not known", format!("begin with {SCHEMES}")),
    }
}

fn server(rest: &str, tls: bool) -> Result<RedisUrl, Problem> {
    let parts = split(rest)?;
    if let Some((name, _)) = parameters(parts.query)?.first() {
        return problem(
            format!("the parameter `{name}` is not known"),
            "remove it; the number of the database stands behind the host: /1",
        );
    }
    if parts.hosts.contains(',') {
        return problem(
            "there is more than one host",
            "name one, or, if these are Sentinels, write redis+sentinel://host1,host2/master",
        );
    }
    let place = Place::Server(host_port(parts.hosts, REDIS_PORT)?);
    Ok(RedisUrl { place, tls, login: parts.login, database: database(parts.path)? })
}

fn sentinel(rest: &str, tls: bool) -> Result<RedisUrl, Problem> {
    let parts = split(rest)?;
    let (master, index) = parts.path.split_once('/').unwrap_or((parts.path, ""));
    if master.is_empty() {
        return problem(
            "the name of the master is missing",
            "write it behind the Sentinels, as it stands in their configuration: /mymaster",
        );
    }
    let mut hosts = Vec::new();
    for host in parts.hosts.split(',') {
        hosts.push(host_port(host, SENTINEL_PORT)?);
    }
    if hosts.len() > SENTINELS_MAX {
        return problem(
            format!("there are {} Sentinels", hosts.len()),
            format!("name at most {SENTINELS_MAX}"),
        );
    }
    let (mut user, mut password) = (None, None);
    for (name, value) in parameters(parts.query)? {
        match name.as_str() {
            "sentinel_user" => user = Some(value),
            "sentinel_password" => password = Some(value),
            _ => return unknown_parameter("sentinel_user and sentinel_password"),
        }
    }
    let login = login(user, password)?;
    let sentinels = Sentinels { hosts, master: decode(master, "name of the master")?, login };
    let place = Place::Sentinels(sentinels);
    Ok(RedisUrl { place, tls, login: parts.login, database: database(index)? })
}

fn socket(rest: &str) -> Result<RedisUrl, Problem> {
    if rest.contains(['#', '@']) {
        return problem("there is an `@` or a `#` in it", ENCODE);
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = decode(path, "path")?;
    if !path.starts_with('/') || path.ends_with('/') {
        return problem(
            "the path of the socket is not absolute",
            "write three slashes: unix:///run/redis/redis.sock",
        );
    }
    if path.len() > SOCKET_PATH_MAX_BYTES || path.contains('\0') {
        return problem(
            "the path is not one of a socket",
            format!("it must have at most {SOCKET_PATH_MAX_BYTES} bytes"),
        );
    }
    let (mut user, mut password, mut index) = (None, None, String::new());
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "user" => user = Some(value),
            "pass" => password = Some(value),
            "db" => index = value,
            _ => return unknown_parameter("db, user and pass"),
        }
    }
    let place = Place::Socket(PathBuf::from(path));
    Ok(RedisUrl { place, tls: false, login: login(user, password)?, database: database(&index)? })
}

/// Takes credentials, hosts, path and query apart.
fn split(rest: &str) -> Result<Parts<'_>, Problem> {
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if behind.contains('@') {
        return problem(
            "there is an `@` behind the host, or a `/`, `?` or `#` in the password",
            ENCODE,
        );
    }
    if behind.contains('#') {
        return problem("there is a `#` in it", ENCODE);
    }
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (Some(credentials), hosts),
        None => (None, authority),
    };
    let login = match credentials.map(|credentials| credentials.split_once(':')) {
        None => None,
        Some(Some((user, password))) => {
            let user = decode(user, "user")?;
            login(Some(user), Some(decode(password, "password")?))?
        }
        Some(None) => {
            return problem(
                "there is no `:` before the `@`, so it is not clear which is the password",
                "write user:password@host, or :password@host",
            );
        }
    };
    let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
    Ok(Parts { login, hosts, path: path.strip_prefix('/').unwrap_or(path), query })
}

/// An empty user is the default one. An empty password is allowed with a user, as Redis has users that need none.
fn login(user: Option<String>, password: Option<String>) -> Result<Option<Login>, Problem> {
    let user = user.filter(|user| !user.is_empty());
    match (user, password) {
        (None, None) => Ok(None),
        (None, Some(password)) if password.is_empty() => problem(
            "the password is empty",
            "write the password, or leave it out with its `:` and `@`",
        ),
        (Some(_), None) => problem("there is a user, but no password", "add the password"),
        (user, Some(password)) => Ok(Some(Login { user, password })),
    }
}

fn host_port(text: &str, default_port: u16) -> Result<HostPort, Problem> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, port)) = rest.split_once(']') else {
            return problem("there is a `[` without a `]`", "write an IPv6 address as [::1]:6379");
        };
        if host.parse::<Ipv6Addr>().is_err() {
            return problem(format!("`{host}` is not an IPv6 address"), "write it as [::1]:6379");
        }
        match port.strip_prefix(':') {
            None if !port.is_empty() => {
                return problem("there is no `:` before the port", "write [::1]:6379");
            }
            port => (host, port),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return problem(
                    format!("`{text}` has more than one `:`"),
                    "put an IPv6 address into brackets: [::1]:6379",
                );
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return problem("there is no host", "write redis://host:6379");
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte)) {
        return problem(
            format!("`{host}` is not the name of a host"),
            "write a name or an address",
        );
    }
    let port = match port {
        None => default_port,
        Some(port) => match number::<u16>(port) {
            Some(port) if port != 0 => port,
            _ => {
                return problem(
                    format!("the port `{port}` is not a number from 1 to 65535"),
                    format!("write host:{default_port}"),
                );
            }
        },
    };
    Ok(HostPort { host: host.to_owned(), port })
}

fn database(text: &str) -> Result<u32, Problem> {
    if text.is_empty() {
        return Ok(0);
    }
    let Some(index) = number(text) else {
        return problem(
            format!("the database `{text}` is not a number"),
            "write 0, or the number of the database",
        );
    };
    Ok(index)
}

/// Digits only: the standard library would take a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn parameters(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if parameters.iter().any(|(known, _)| known == name) {
            return problem("a parameter is there twice", "remove one of them");
        }
        parameters.push((name.to_owned(), decode(value, "value of a parameter")?));
    }
    Ok(parameters)
}

/// Does not name it: it could be what follows an `&` in a password.
fn unknown_parameter<T>(known: &str) -> Result<T, Problem> {
    problem(
        "there is a parameter that is not known",
        format!("known are {known}; an `&` in a value is written %26"),
    )
}

fn decode(text: &str, what: &str) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let decoded = digit(rest.next()).zip(digit(rest.next()));
        let Some(decoded) = decoded.and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
        else {
            return problem(
                format!("in the {what}, `%` is not followed by two hexadecimal digits"),
                "write %25 for the character `%`",
            );
        };
        bytes.push(decoded);
    }
    let Ok(decoded) = String::from_utf8(bytes) else {
        return problem(format!("the {what} is not UTF-8"), "percent-encode its UTF-8 bytes");
    };
    Ok(decoded)
}

/// The text with everything hidden that is, or by a mistake could be, a secret.
fn without_secrets(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('@') => (format!("{scheme}://"), rest),
        _ => (String::new(), text),
    };
    let (hidden, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let mut shown: String = format!("{scheme}{hidden}{place}");
    for (index, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some(("db" | "user" | "sentinel_user", _)) => shown.push_str(pair),
            Some((name @ ("pass" | "sentinel_password"), _)) => {
                shown.push_str(name);
                shown.push_str("=***");
            }
            _ => shown.push_str("***"),
        }
    }
    shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
