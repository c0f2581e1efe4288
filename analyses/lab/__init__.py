"""The lab: one clip with edits, made on request and compared with the unedited one."""
