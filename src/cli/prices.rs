//! A store's prices for requests and bytes, as configured by the user.

use serde::{Deserialize, Serialize};

use super::daemon_report::TrafficReport;

/// The bytes of a GB, as stores count.
const GB: f64 = 1e9;

/// `[prices]` of the configuration. A missing price is zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Prices {
    /// The text before an amount, such as `$`.
    pub currency: String,
    /// Price of 1,000 PUT, and of 1,000 listings.
    pub put_1000: f64,
    /// Price of 1,000 GET, and of 1,000 HEAD.
    pub get_1000: f64,
    /// Price of a GB that leaves the store.
    pub egress_gb: f64,
    /// Price of storing a GB for a month.
    pub storage_gb_month: f64,
}

/// The resulting cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cost {
    pub today: f64,
    pub month: f64,
}

impl Prices {
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn of(&self, traffic: &TrafficReport, stored: u64) -> Cost {
        let good = |price: f64| if price.is_finite() { price.max(0.0) } else { 0.0 };
        let (puts, gets) = (traffic.puts + traffic.lists, traffic.gets + traffic.heads);
        let today = puts as f64 / 1000.0 * good(self.put_1000)
            + gets as f64 / 1000.0 * good(self.get_1000)
            + traffic.received as f64 / GB * good(self.egress_gb);
        Cost { today, month: stored as f64 / GB * good(self.storage_gb_month) }
    }

    fn currency(&self) -> &str {
        if self.currency.is_empty() { "$" } else { &self.currency }
    }

    /// All prices as text.
    pub(super) fn describe(&self) -> String {
        let currency = self.currency();
        format!(
            "{currency}{} for 1,000 PUT, {currency}{} for 1,000 GET, {currency}{} for a GB that leaves, {currency}{} for a GB \
             that lies there a month",
            self.put_1000, self.get_1000, self.egress_gb, self.storage_gb_month
        )
    }

    /// An amount as text.
    pub(super) fn amount(&self, amount: f64) -> String {
        let currency = self.currency();
        match amount {
            0.0 => format!("{currency}0"),
            small if small < 0.01 => format!("less than {currency}0.01"),
            amount => format!("{currency}{amount:.2}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_and_a_month_are_reckoned_by_the_table() {
        let prices: Prices = toml::from_str(
            "put-1000 = 0.005\nget-1000 = 0.0004\negress-gb = 0.09\nstorage-gb-month = 0.023",
        )
        .unwrap();
        let traffic = TrafficReport {
            puts: 90_000,
            lists: 10_000,
            gets: 900_000,
            heads: 100_000,
            received: 10_000_000_000,
            ..TrafficReport::default()
        };
        let cost = prices.of(&traffic, 1_000_000_000_000);
        assert_eq!(prices.amount(cost.today), "$1.80");
        assert_eq!(prices.amount(cost.month), "$23.00");
        assert_eq!(prices.amount(0.001), "less than $0.01");
        assert_eq!(
            prices.describe(),
            "$0.005 for 1,000 PUT, $0.0004 for 1,000 GET, $0.09 for a GB that leaves, $0.023 for a GB that lies there a month"
        );
        let euros = Prices { currency: "EUR ".into(), put_1000: f64::NAN, ..prices };
        assert_eq!(euros.amount(euros.of(&traffic, 0).month), "EUR 0");
        assert!(euros.of(&traffic, 0).today > 1.2);
    }
}
