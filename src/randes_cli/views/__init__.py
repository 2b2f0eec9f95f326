"""Pictures and pages made from reports. The only place that knows matplotlib."""
