//! OpenStack's nova starts VMs through libvirt, names them by its template, and writes its product into their SMBIOS. Their UUID is that of
//! the instance.

use super::{Found, manager};
use crate::host::{options::smbios_system, process::Process};

/// Nova's labels of a VM in a scope of libvirt; none where libvirt's user is another.
pub(super) fn labels(process: &Process) -> Option<Found> {
    // "OpenStack Nova", or "OpenStack Compute" in RDO and of Red Hat.
    let product = smbios_system(&process.arguments, "product")?;
    product.starts_with("OpenStack ").then(|| vec![manager("openstack"), ("instance", process.name())])
}
