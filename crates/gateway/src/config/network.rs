//! Networks of IP addresses, written as `10.0.0.0/8`, or as a single address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use toml::Value;

use super::setting::{Form, Setting, either};

/// Bits of an address. IPv4 addresses are held as their mapped IPv6 addresses, after so many bits.
const BITS: u8 = 128;
const BITS_BEFORE_IPV4: u8 = 96;

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: Ipv6Addr,
    /// How many bits they share.
    bits: u8,
}

impl Network {
    /// Whether the address is in it. An IPv4 address is the same whether it is written as IPv6 or not.
    pub fn contains(&self, address: IpAddr) -> bool {
        beginning(to_v6(address), self.bits) == self.first
    }

    /// Whether every address of its kind is in it.
    pub fn is_everything(&self) -> bool {
        self.bits == 0 || (self.bits == BITS_BEFORE_IPV4 && self.first.to_ipv4_mapped().is_some())
    }
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn beginning(address: Ipv6Addr, bits: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(u32::from(BITS - bits)).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

/// What is not a network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IP address or a network such as 10.0.0.0/8")]
pub struct NetworkError;

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_error| NetworkError)?;
        let before = if address.is_ipv4() { BITS_BEFORE_IPV4 } else { 0 };
        let bits = match bits {
            None => BITS - before,
            Some(bits) => bits.parse().map_err(|_error| NetworkError)?,
        };
        let bits = before.checked_add(bits).filter(|bits| *bits <= BITS).ok_or(NetworkError)?;
        Ok(Self { first: beginning(to_v6(address), bits), bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first.to_canonical();
        let before = if first.is_ipv4() { BITS_BEFORE_IPV4 } else { 0 };
        match self.bits {
            BITS => first.fmt(f),
            // An address that is IPv4 has at least the bits before it.
            bits => write!(f, "{first}/{}", bits.saturating_sub(before)),
        }
    }
}

impl Setting for Vec<Network> {
    const EXPECTED: &'static str =
        "a list of addresses and networks such as [\"10.0.0.0/8\", \"::1\"]";
    const FORM: Form =
        Form::List { least: 0, items: &Form::Pattern("^[0-9a-fA-F.:]+(/[0-9]{1,3})?$") };

    fn read(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(|item| item.as_str()?.parse().ok()).collect()
    }

    fn write(&self) -> Value {
        Value::Array(self.iter().map(|network| Value::String(network.to_string())).collect())
    }
}

/// Whether a proxy in front says who its clients are with the PROXY protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// No connection begins with its header.
    #[default]
    Off,
    /// Every connection does.
    Required,
}

either!(ProxyProtocol: Off => "off", Required => "required");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let check = |text: &str, shown: &str, inside: &[&str], outside: &[&str]| {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), shown);
            assert_eq!(shown.parse(), Ok(network));
            for address in inside {
                assert!(network.contains(address.parse().unwrap()), "{address} in {text}");
            }
            for address in outside {
                assert!(!network.contains(address.parse().unwrap()), "{address} in {text}");
            }
        };
        check(
            "10.0.0.0/8",
            "10.0.0.0/8",
            &["10.1.2.3", "::ffff:10.9.9.9"],
            &["11.0.0.0", "::a00:1"],
        );
        check("10.1.2.3/8", "10.0.0.0/8", &["10.0.0.0", "10.255.255.255"], &["9.255.255.255"]);
        check("127.0.0.1", "127.0.0.1", &["127.0.0.1"], &["127.0.0.2", "::1"]);
        check("0.0.0.0/0", "0.0.0.0/0", &["1.2.3.4"], &["::1", "fe80::1"]);
        check("::1", "::1", &["::1"], &["::2", "0.0.0.1"]);
        check("fd00::/8", "fd00::/8", &["fd12:3456::1"], &["fe00::1"]);
        check("::/0", "::/0", &["::1", "1.2.3.4"], &[]);
        check("::ffff:10.0.0.0/104", "10.0.0.0/8", &["10.1.2.3"], &["11.0.0.0"]);
        for bad in
            ["", "localhost", "10.0.0.0/33", "::/129", "::/-1", "10.0.0.0/", "10.0.0/8", "/8"]
        {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError), "{bad}");
        }
        let is_everything = |text: &str| text.parse::<Network>().unwrap().is_everything();
        assert!(is_everything("0.0.0.0/0") && is_everything("::/0"));
        assert!(!is_everything("0.0.0.0/1") && !is_everything("::/96"));
    }
}
