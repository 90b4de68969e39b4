//! How strict a member is about addresses: against the open internet, a local network, or a load test on one machine.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// Over this time the buckets for new sessions are counted.
pub const SESSION_WINDOW: Duration = Duration::from_secs(30);

/// New sessions that a whole indexer takes within [`SESSION_WINDOW`], before the profile's factor.
const SESSIONS_WHOLE: u32 = 500;

/// The rules about addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Strangers may connect.
    #[default]
    Public,
    /// Everybody is near and shares few subnets: a demo, a laboratory, a container network.
    Local,
    /// Thousands of clients on one machine; only for listeners on loopback.
    Load,
}

impl Profile {
    /// Every profile, strictest first.
    pub const ALL: [Self; 3] = [Self::Public, Self::Local, Self::Load];

    /// The word for it in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Local => "local",
            Self::Load => "load",
        }
    }

    /// New sessions taken per subnet (/24, IPv6 /48) within [`SESSION_WINDOW`].
    #[must_use]
    pub const fn sessions_per_subnet(self) -> u32 {
        match self {
            Self::Public => 10,
            Self::Local => 10_000,
            Self::Load => 100_000,
        }
    }

    /// New sessions taken by the whole indexer within [`SESSION_WINDOW`].
    #[must_use]
    pub const fn sessions_whole(self) -> u32 {
        SESSIONS_WHOLE * self.requests_factor()
    }

    /// New connections taken per second from one address, inside the bucket of its subnet.
    #[must_use]
    pub const fn connections_per_second(self) -> u32 {
        match self {
            Self::Public => 20,
            Self::Local => 1_000,
            Self::Load => 10_000,
        }
    }

    /// Connections from one address that may be in their handshake at once.
    #[must_use]
    pub const fn half_open_per_address(self) -> u32 {
        match self {
            Self::Public => 16,
            Self::Local => 256,
            Self::Load => 4_096,
        }
    }

    /// By what the limits on one peer's requests are multiplied.
    #[must_use]
    pub const fn requests_factor(self) -> u32 {
        match self {
            Self::Public => 1,
            Self::Local => 10,
            Self::Load => 1_000,
        }
    }

    /// Choices are spread over subnets.
    #[must_use]
    pub const fn is_diverse(self) -> bool {
        matches!(self, Self::Public)
    }

    /// Loopback, private and link-local addresses heard from others are dropped.
    #[must_use]
    pub const fn drops_private(self) -> bool {
        matches!(self, Self::Public)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The word is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("got profile \"{got}\", expected public, local or load")]
pub struct UnknownProfile {
    /// What was got.
    pub got: String,
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| UnknownProfile { got: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(profile: Profile, sessions: u32, whole: u32, connections: u32, half_open: u32, factor: u32) {
        assert_eq!(profile.sessions_per_subnet(), sessions, "{profile}");
        assert_eq!(profile.sessions_whole(), whole, "{profile}");
        assert_eq!(profile.connections_per_second(), connections, "{profile}");
        assert_eq!(profile.half_open_per_address(), half_open, "{profile}");
        assert_eq!(profile.requests_factor(), factor, "{profile}");
    }

    #[test]
    fn the_figures_are_those_of_the_table() {
        check(Profile::Public, 10, 500, 20, 16, 1);
        check(Profile::Local, 10_000, 5_000, 1_000, 256, 10);
        check(Profile::Load, 100_000, 500_000, 10_000, 4_096, 1_000);
    }

    #[test]
    fn only_the_public_profile_spreads_and_filters() {
        for profile in Profile::ALL {
            assert_eq!(profile.is_diverse(), profile == Profile::Public);
            assert_eq!(profile.drops_private(), profile == Profile::Public);
        }
    }

    #[test]
    fn its_word_is_the_same_in_settings_and_in_print() {
        for profile in Profile::ALL {
            assert_eq!(serde_json::to_string(&profile).unwrap(), format!("\"{profile}\""));
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        assert!("Public".parse::<Profile>().is_err());
        assert!(serde_json::from_str::<Profile>("\"loud\"").is_err());
    }
}
