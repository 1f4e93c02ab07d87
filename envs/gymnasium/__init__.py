"""Any environment of Gymnasium's API, in worker processes, with a captioner of the user's."""
